"""Which texts are calibrated on: never one that is measured on, and always the same."""

import random

import pytest

from optimizer.data.calibration import FEWEST, MOST, SPARED, apart, split
from optimizer.data.texts import DataSettings, Text, Texts, fingerprint
from optimizer.errors import DataError


def texts_of(*texts: Text, labels: tuple[str, ...] | None = None, name: str = "test.jsonl") -> Texts:
    return Texts(texts, labels, name, fingerprint(texts, labels), DataSettings())


def numbered(count: int) -> Texts:
    words = tuple(f"text {number}" for number in range(count))
    return texts_of(*words, labels=tuple(str(number) for number in range(count)))


def test_a_split_shares_no_text_and_loses_none() -> None:
    everything = numbered(1000)
    asked, calibration = split(everything)
    assert not set(asked.texts) & set(calibration.texts)
    assert set(asked.texts) | set(calibration.texts) == set(everything.texts)
    assert len(calibration.texts) == 200
    assert calibration.labels is None
    assert asked.labels is not None
    assert [f"text {label}" for label in asked.labels] == list(asked.texts)
    assert asked.fingerprint != everything.fingerprint


def test_a_split_takes_no_more_than_it_needs() -> None:
    _, calibration = split(numbered(10_000))
    assert len(calibration.texts) == SPARED
    others = texts_of(*(f"other {number}" for number in range(MOST + 9)))
    kept, _ = apart(numbered(10), others)
    assert len(kept.texts) == MOST
    assert kept.texts == apart(numbered(10), texts_of(*reversed(others.texts)))[0].texts


def test_a_split_depends_on_no_order() -> None:
    everything = numbered(500)
    shuffled = random.Random(1).sample(everything.texts, 500)
    assert split(texts_of(*shuffled))[1] == split(texts_of(*everything.texts))[1]


def test_equal_texts_stay_on_one_side() -> None:
    doubled = numbered(100).texts * 3
    asked, calibration = split(texts_of(*doubled))
    assert len(asked.texts) + 3 * len(calibration.texts) == 300


def test_too_few_texts_to_split() -> None:
    with pytest.raises(DataError, match=r"too few texts.*write data\.calibration=FILE"):
        split(numbered(5 * FEWEST - 1))
    split(numbered(5 * FEWEST))


def test_given_texts_that_are_measured_on_are_left_out_and_counted() -> None:
    given = texts_of(*(f"other {number}" for number in range(299)), "text 1", name="calibration.txt")
    kept, dropped = apart(numbered(10), given)
    assert dropped == 1
    assert len(kept.texts) == 299
    assert "text 1" not in kept.texts
    assert kept.name == "calibration.txt"


def test_given_texts_of_which_many_are_measured_on_are_refused() -> None:
    given = texts_of(*(f"other {number}" for number in range(98)), "text 1", "text 2", name="calibration.txt")
    with pytest.raises(DataError) as caught:
        apart(numbered(10), given)
    assert str(caught.value) == (
        "data.calibration: 2 of the 100 texts of calibration.txt are also in test.jsonl, "
        "on which the agreement is measured; give others"
    )


def test_pairs_are_texts_too() -> None:
    pairs = texts_of(*((f"question {number}", f"answer {number}") for number in range(100)))
    asked, calibration = split(pairs)
    assert not set(asked.texts) & set(calibration.texts)
