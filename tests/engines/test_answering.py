"""Texts in, answers out: those of transformers' pipeline, whatever the order, the lengths, the batches."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import optimize

import optimizer
from optimizer.engines.answering import in_batches
from optimizer.engines.spans import best_span
from optimizer.errors import EvaluationError

pytest.importorskip("openvino")
pytest.importorskip("nncf")
pytest.importorskip("onnxruntime")

TinyModel = Callable[..., Path]
FORMATS = ("openvino", "onnx", "packed_openvino")
TEXTS = [
    "the dog", "a big red fish runs now", "the cat sees a small bird here", "bird", "a", "fish " * 60, "the dog", "",
]  # fmt: skip
PAIRS = [("the cat", "a dog sees the cat"), ("a big bird", "now"), ("the fish runs", "a fish")]


def graph(original: Path, place: Path, format: str = "openvino") -> Any:
    """The float graph of a model, loaded."""
    optimize(original, place, {}, format=format, engine={"precision": "float32"})
    return optimizer.load(place)


def pipeline(original: Path) -> Any:
    from transformers import AutoTokenizer, pipeline

    tokenizer = AutoTokenizer.from_pretrained(original)
    return pipeline("text-classification", model=optimizer.load(original), tokenizer=tokenizer)


def same(found: list[Any], expected: list[Any]) -> None:
    assert [one["label"] for one in found] == [one["label"] for one in expected]
    assert [one["score"] for one in found] == pytest.approx([one["score"] for one in expected], abs=1e-4)


@pytest.mark.parametrize("format", FORMATS)
def test_answers_are_those_of_the_pipeline_in_the_order_of_the_texts(
    tiny_model: TinyModel, tmp_path: Path, format: str
) -> None:
    original = tiny_model("sequence-classification")
    ours = graph(original, tmp_path / "artifact", format)
    expected = pipeline(original)(TEXTS, truncation=True)
    for batch_size in (1, 3, 100):
        same(ours.answer(TEXTS, batch_size=batch_size), expected)
    same(ours.answer(text for text in TEXTS), expected)
    assert len({round(one["score"], 3) for one in expected}) == len({*TEXTS})


def test_pairs(tiny_model: TinyModel, tmp_path: Path) -> None:
    original = tiny_model("sequence-classification")
    ours = graph(original, tmp_path / "artifact")
    expected = pipeline(original)([{"text": first, "text_pair": second} for first, second in PAIRS])
    same(ours.answer(PAIRS, batch_size=2), expected)


@pytest.mark.parametrize(
    "config",
    [
        {"problem_type": "multi_label_classification"},
        {"num_labels": 1},
        {"num_labels": 1, "problem_type": "regression"},
    ],
    ids=["labels", "one", "number"],
)
def test_other_scores(tiny_model: TinyModel, tmp_path: Path, config: dict[str, Any]) -> None:
    original = tiny_model("sequence-classification", tmp_path / "original", **config)
    ours = graph(original, tmp_path / "artifact")
    same(ours.answer(TEXTS), pipeline(original)(TEXTS, truncation=True))


def test_more_than_the_first_label(tiny_model: TinyModel, tmp_path: Path) -> None:
    original = tiny_model("sequence-classification")
    ours = graph(original, tmp_path / "artifact")
    expected = pipeline(original)(TEXTS, truncation=True, top_k=None)
    for found, labels in zip(ours.answer(TEXTS, top_k=None), expected, strict=True):
        same(found, labels)
        assert sum(one["score"] for one in found) == pytest.approx(1, abs=1e-5)
    assert [len(labels) for labels in ours.answer(TEXTS[:2], top_k=2)] == [2, 2]
    assert [len(labels) for labels in ours.answer(TEXTS[:2], top_k=9)] == [3, 3]


def test_no_texts_have_no_answers_and_one_text_is_no_list(tiny_model: TinyModel, tmp_path: Path) -> None:
    ours = graph(tiny_model("sequence-classification"), tmp_path / "artifact")
    assert ours.answer([]) == []
    wrong: list[tuple[Any, str]] = [
        ("the cat", "texts: is one text; write answer([text])"),
        (
            ["the cat", ("a", "dog")],
            "texts: are neither all texts nor all pairs; write [text, …] or [(first, second), …]",
        ),
        ([("a", "b", "c")], "texts: are neither all texts nor all pairs; write [text, …] or [(first, second), …]"),
        ([7], "texts: are neither all texts nor all pairs; write [text, …] or [(first, second), …]"),
    ]
    for texts, line in wrong:
        with pytest.raises(EvaluationError) as caught:
            ours.answer(texts)
        assert str(caught.value) == line
    with pytest.raises(EvaluationError, match=r"^batch_size: 0: should be at least 1$"):
        ours.answer(["a"], batch_size=0)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_tokens_have_the_labels_that_the_pipeline_gives(tiny_model: TinyModel, tmp_path: Path, batch_size: int) -> None:
    from transformers import AutoTokenizer, pipeline

    original = tiny_model("token-classification")
    ours = graph(original, tmp_path / "artifact")
    tokenizer = AutoTokenizer.from_pretrained(original)
    texts = [text for text in TEXTS if text]
    expected = pipeline("token-classification", model=optimizer.load(original), tokenizer=tokenizer)(texts)
    for found, tokens in zip(ours.answer(texts, batch_size=batch_size), expected, strict=True):
        assert [(one["entity"], one["start"], one["end"]) for one in found] == [
            (one["entity"], one["start"], one["end"]) for one in tokens
        ]
        assert [one["score"] for one in found] == pytest.approx([one["score"] for one in tokens], abs=1e-4)
    with pytest.raises(
        EvaluationError, match=r"^texts: are pairs, but tokens are labelled in texts; write \[text, …\]$"
    ):
        ours.answer(PAIRS)
    with pytest.raises(EvaluationError, match=r"^top_k: is for labels of whole texts, not for token-classification; "):
        ours.answer(texts, top_k=2)


def test_questions_have_spans_of_their_contexts(tiny_model: TinyModel, tmp_path: Path) -> None:
    original = tiny_model("question-answering")
    ours = graph(original, tmp_path / "artifact")
    pairs = [*PAIRS, ("the cat", ""), ("a bird", "the fish " * 400)]
    found = ours.answer(pairs, batch_size=2)
    for (_, context), one in zip(pairs, found, strict=True):
        assert context[one["start"] : one["end"]] == one["answer"]
        assert 0 <= one["score"] <= 1
    assert found[3] == {"answer": "", "start": 0, "end": 0, "score": 0.0}
    alone = [ours.answer([pair])[0] for pair in pairs]
    assert [one["answer"] for one in alone] == [one["answer"] for one in found]
    with pytest.raises(EvaluationError, match=r"write \[\(question, context\), …\]$"):
        ours.answer(["the cat"])


def test_the_likeliest_span_is_not_the_two_likeliest_ends() -> None:
    offsets = [None, (0, 3), (4, 7), (8, 12), None]
    found = best_span(torch.tensor([9.0, 0, 5, 1, 9]), torch.tensor([9.0, 6, 0, 5, 9]), offsets, "one two four")
    assert found["answer"] == "two four"
    long = [(place, place + 1) for place in range(40)]
    far = torch.full((40,), -9.0)
    starts, ends = far.clone(), far.clone()
    starts[0], ends[39], ends[3] = 9, 9, 5
    assert best_span(starts, ends, long, "x" * 40)["end"] == 4


def test_what_says_nothing_of_texts_says_what_to_call(tiny_model: TinyModel, tmp_path: Path) -> None:
    encoder = graph(tiny_model("encoder"), tmp_path / "encoder")
    with pytest.raises(EvaluationError, match=r"which encoder does not; call the model itself$"):
        encoder.answer(["the cat"])


def test_without_a_tokenizer(tiny_model: TinyModel, tmp_path: Path) -> None:
    ours = graph(tiny_model("sequence-classification"), tmp_path / "artifact")
    for path in (tmp_path / "artifact").glob("tokenizer*"):
        path.unlink()
    with pytest.raises(EvaluationError, match=r"^answer: 'artifact' has no tokenizer; call the model with tokens$"):
        ours.answer(["the cat"])


def test_batches_hold_so_many_texts_and_so_many_tokens() -> None:
    lengths = [*torch.randint(0, 60, (200,), generator=torch.Generator().manual_seed(0)).tolist(), 500]
    batches = in_batches(lengths, 16, 256)
    assert sorted(place for batch in batches for place in batch) == list(range(201))
    assert batches[0] == [200]
    for batch in batches[1:]:
        assert len(batch) <= 16
        assert len(batch) * max(lengths[place] for place in batch) <= 256
    longest = [lengths[batch[0]] for batch in batches]
    assert longest == sorted(longest, reverse=True)
    assert in_batches([], 16) == []
