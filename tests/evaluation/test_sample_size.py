"""How many texts a gate takes, held against the interval itself."""

from typing import Any

import pytest

from optimizer.evaluation.agreement import wilson
from optimizer.evaluation.sample_size import examples_for, too_few, would_show


@pytest.mark.parametrize("bound", [0.5, 0.9, 0.95, 0.99, 0.995, 0.999])
def test_one_text_less_would_not_do(bound: float) -> None:
    needed = examples_for(bound)
    assert needed is not None
    assert wilson(needed, needed)[0] >= bound > wilson(needed - 1, needed - 1)[0]


@pytest.mark.parametrize(("bound", "share"), [(0.99, 0.995), (0.95, 0.98), (0.9, 0.91), (0.5, 0.75)])
def test_at_a_lesser_agreement_it_takes_more(bound: float, share: float) -> None:
    needed = examples_for(bound, share)
    assert needed is not None
    whole = 1000 * needed  # so that the share is one of them
    assert wilson(round(share * whole), whole)[0] > bound
    ten_percent = round(0.1 * needed)
    assert wilson(round(share * (needed + ten_percent)), needed + ten_percent)[0] > bound
    assert wilson(round(share * (needed - ten_percent)), needed - ten_percent)[0] < bound
    assert needed > (examples_for(bound) or 0)


def test_no_number_shows_more_than_there_is() -> None:
    assert examples_for(0.99, 0.99) is None
    assert examples_for(1.0) is None
    assert examples_for(0.0) == 1


def test_what_is_too_few_is_told_for_gates_on_shares_alone() -> None:
    (line,) = too_few({"agreement_low": 0.99, "size_ratio": 0.5, "accuracy_drop": 0.01}, 380)
    assert line == (
        "gates.agreement_low: 380 texts are too few to show 0.99 with its interval, so it will be missed: it takes 381 "
        "or more, and all of them answered alike"
    )
    assert too_few({"agreement_low": 0.99, "agreement": 0.99}, 381) == []
    (line,) = too_few({"agreement": 0.99}, 200)
    assert "missed" not in line


def test_a_miss_that_more_texts_would_mend_says_how_many() -> None:
    def gate(name: str, missed: str | None) -> dict[str, Any]:
        return {"gate": name, "bound": 0.99, "missed": missed}

    figures = {"agreement": 0.995, "agreement_low": 0.985}
    assert would_show([gate("agreement_low", "it")], figures) == [
        "agreement_low 0.99 takes about 1522 texts at agreement 0.9950"
    ]
    assert would_show([gate("agreement_low", None), gate("agreement", "it")], figures) == []
    assert would_show([gate("agreement_low", "it")], {"agreement": 0.98}) == []
    words = {**figures, "counted": "words", "sentence_agreement": 0.995}
    assert would_show([gate("agreement_low", "it")], words) == [], "their interval is by text"
    assert would_show([gate("sentence_agreement_low", "it")], words) == [
        "sentence_agreement_low 0.99 takes about 1522 texts at sentence_agreement 0.9950"
    ]
    assert would_show([gate("size_ratio against a-1", "it")], figures) == []


def test_the_screen_says_it_before_and_after(optimizer: Any, tiny_model: Any) -> None:
    words = [f"model.path={tiny_model('sequence-classification')}", "data.path=builtin", "evaluation.repetitions=0"]
    code, out, err = optimizer("recipe=fp16", *words, "gates.agreement_low=0.985", "threads=1")
    assert code == 1
    assert "gates.agreement_low: 200 texts are too few to show 0.985 with its interval, so it will be missed" in err
    assert "agreement_low 0.985 takes about 253 texts at agreement 1.0000." in out
    code, _, err = optimizer("recipe=fp16", *words, "gates.agreement_low=0.98", "threads=1")
    assert code == 0
    assert "too few" not in err


def test_where_tokens_are_counted_nothing_is_said(optimizer: Any, tiny_model: Any) -> None:
    words = [f"model.path={tiny_model('token-classification')}", "data.path=builtin", "evaluation.repetitions=0"]
    _, _, err = optimizer("recipe=fp16", *words, "gates.agreement_low=0.99", "threads=1")
    assert "too few" not in err


def test_a_search_says_it_once(optimizer: Any, tiny_model: Any) -> None:
    pytest.importorskip("optuna")
    words = [f"model.path={tiny_model('sequence-classification')}", "data.path=builtin", "evaluation.repetitions=0"]
    _, _, err = optimizer("recipe=smallest_steps", *words, "search.trials=3", "threads=1")
    assert err.count("gates.agreement: 200 texts are too few to show 0.99 with its interval: it takes 381") == 1
