"""Which answers changed: in every kind of answer, counted as agreement counts, in words that people read."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from optimizer.data.texts import DataSettings, read
from optimizer.data.tokens import TokenInputs
from optimizer.evaluation.changed import Changed
from optimizer.evaluation.inputs import Batch, batches, prepare
from optimizer.evaluation.job import Environment, EvaluationSettings
from optimizer.evaluation.measure import Job, evaluate
from optimizer.evaluation.predict import predict
from optimizer.evaluation.tally import Answers
from optimizer.model.loading import load
from optimizer.model.task import Task
from optimizer.rows.changes import Change, has_texts, read_changes, write_changes

TinyModel = Callable[..., Path]
WORDS = ["the", "a", "cat", "dog", "bird", "fish", "sees", "likes", "finds", "red", "green", "blue", "big", "small"]


def file(folder: Path, count: int = 60) -> Path:
    choose = random.Random(0)
    path = folder / "texts.jsonl"
    rows = [{"text": " ".join(choose.choices(WORDS, k=choose.randint(2, 9))), "more": "a dog"} for _ in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def noisy(original: Path, directory: Path) -> Path:
    """A copy whose weights are a little different."""
    directory.mkdir()
    for source in original.iterdir():
        (directory / source.name).write_bytes(source.read_bytes())
    torch.manual_seed(1)
    weights = load_file(original / "model.safetensors")
    others = {name: w + 0.1 * torch.randn_like(w) if w.is_floating_point() else w for name, w in weights.items()}
    save_file(others, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def measured(original: Path, task: Task, folder: Path, **data: Any) -> tuple[dict[str, Any], list[Change]]:
    """The figures of a noisy copy, and the changes that were kept."""
    settings = DataSettings(path=str(file(folder)), label="", **data)
    texts = read(settings, is_demo=False)
    evaluation = EvaluationSettings(repetitions=0, batch_size=4)
    one = Job(
        original, noisy(original, folder / "artifact"), "f", task, texts.source, texts.fingerprint, evaluation,
        Environment(threads=1), folder / "cache", changes=folder,
    )  # fmt: skip
    figures = evaluate(one)
    found = read_changes(folder)
    assert found is not None
    assert len(found.shown) == found.total
    return figures, found.shown


def test_a_classifiers_changes_are_those_that_agreement_counts(tiny_model: TinyModel, tmp_path: Path) -> None:
    model = tiny_model("sequence-classification")
    figures, changes = measured(model, "sequence-classification", tmp_path)
    assert 0 < len(changes) == round((1 - figures["agreement"]) * figures["examples"])
    assert [change.original_margin for change in changes] == sorted((c.original_margin for c in changes), reverse=True)
    texts = [json.loads(line)["text"] for line in (tmp_path / "texts.jsonl").read_text().splitlines()]
    asked = {change.position: texts[change.position] for change in changes}
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    for directory, side in ((model, "original"), (tmp_path / "artifact", "artifact")):
        with torch.inference_mode():
            runs = load(directory).eval()
            for change in changes:
                logits = runs(**tokenizer(asked[change.position], return_tensors="pt")).logits[0]
                first, second = logits.softmax(-1).topk(2).values.tolist()
                assert getattr(change, side) == f"LABEL_{int(logits.argmax())}"
                assert getattr(change, f"{side}_margin") == pytest.approx(first - second, abs=1e-4)
    assert not has_texts(tmp_path)
    assert "cat" not in (tmp_path / "changed.jsonl").read_text()


def test_texts_are_kept_where_that_is_asked_for(tiny_model: TinyModel, tmp_path: Path) -> None:
    model = tiny_model("sequence-classification")
    _, changes = measured(model, "sequence-classification", tmp_path, text=["text", "more"], keep_texts=True)
    rows = [json.loads(line) for line in (tmp_path / "texts.jsonl").read_text().splitlines()]
    for change in changes:
        assert change.text == [rows[change.position]["text"], "a dog"]
        assert change.words == f"{rows[change.position]['text']} | a dog"
    assert changes
    assert has_texts(tmp_path)


def test_a_part_of_the_texts_goes_by_the_numbers_of_all(tiny_model: TinyModel, tmp_path: Path) -> None:
    more = {"part": "held_out", "held_out": 30, "keep_texts": True}
    settings = DataSettings(path=str(file(tmp_path)), label="", **more)
    from optimizer.data.calibration import measured as measured_texts

    texts = measured_texts(settings, is_demo=False, calibrated=False)
    model = tiny_model("sequence-classification")
    one = Job(
        model, noisy(model, tmp_path / "artifact"), "f", "sequence-classification", texts.source, texts.fingerprint,
        EvaluationSettings(repetitions=0), Environment(threads=1), tmp_path / "cache", changes=tmp_path,
    )  # fmt: skip
    evaluate(one)
    found = read_changes(tmp_path)
    assert found
    assert found.total
    rows = [json.loads(line)["text"] for line in (tmp_path / "texts.jsonl").read_text().splitlines()]
    assert all(rows[change.position] == change.text for change in found.shown)


@pytest.mark.parametrize("task", ["token-classification", "causal-lm", "masked-lm"])
def test_where_each_token_is_answered_a_text_changes_once(tiny_model: TinyModel, tmp_path: Path, task: Task) -> None:
    figures, changes = measured(tiny_model(task), task, tmp_path)
    assert sum(change.tokens or 0 for change in changes) == round((1 - figures["agreement"]) * figures["examples"]) > 0
    assert len({change.position for change in changes}) == len(changes)
    assert all(change.token is not None and change.original != change.artifact for change in changes)
    names = {change.original for change in changes}
    labels = {"LABEL_0", "LABEL_1", "LABEL_2"}
    assert names <= labels if task == "token-classification" else not names & labels


def test_the_token_is_the_first_that_differs(tiny_model: TinyModel, tmp_path: Path) -> None:
    model = tiny_model("token-classification")
    texts = read(DataSettings(path=str(file(tmp_path)), label=""), is_demo=False)
    inputs = prepare(model, "token-classification", texts, 0)
    first, *_ = batches(inputs.examples(4), 4, inputs.pad_id, 1)
    before = predict("token-classification", load(model).eval(), first.inputs).logits
    after = before.clone()
    lengths = first.inputs["attention_mask"].sum(1).tolist()
    row = lengths[0] + 2  # the third token of the second text, and its last
    for place in (row, lengths[0] + lengths[1] - 1):
        after[place] = -after[place]
    changed = Changed("token-classification", AutoConfig.from_pretrained(model), inputs, keep_texts=False)
    owners = torch.tensor(first.positions).repeat_interleave(first.inputs["attention_mask"].sum(1))
    changed.add(first, Answers(before, after, texts=owners))
    (change,) = changed.found()
    assert (change.position, change.token, change.tokens) == (first.positions[1], 2, 2)


def test_where_words_are_labelled_the_place_is_that_of_a_word(tiny_model: TinyModel, tmp_path: Path) -> None:
    path = tmp_path / "words.jsonl"
    choose = random.Random(0)
    rows = [{"tokens": ["unseenword", *choose.choices(WORDS, k=choose.randint(2, 9))]} for _ in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = tiny_model("token-classification")
    texts = read(DataSettings(path=str(path), tokens="tokens", label="", keep_texts=True), is_demo=False)
    one = Job(
        model, noisy(model, tmp_path / "artifact"), "f", "token-classification", texts.source, texts.fingerprint,
        EvaluationSettings(repetitions=0, batch_size=4), Environment(threads=1), tmp_path / "cache", changes=tmp_path,
    )  # fmt: skip
    figures = evaluate(one)
    found = read_changes(tmp_path)
    assert found
    assert figures["counted"] == "words"
    assert found.total == round((1 - figures["sentence_agreement"]) * len(rows)) > 0
    assert sum(each.tokens or 0 for each in found.shown) == round((1 - figures["agreement"]) * figures["examples"])
    for change in found.shown:
        words = rows[change.position]["tokens"]
        assert change.text == " ".join(words)
        assert change.token is not None
        assert change.token < len(words)
    inputs = prepare(model, "token-classification", texts, 0)
    assert isinstance(inputs, TokenInputs)
    starts = {0: torch.tensor([-1, 0, 2, 2, 3, -1])}  # the second word has no token, the third two
    starts[0][3] = -1
    changed = Changed(
        "token-classification", AutoConfig.from_pretrained(model), inputs, keep_texts=False, starts=starts
    )
    before = torch.tensor([[1.0, 0.0, 0.0]] * 3)
    after = before.flip(1)
    after[0] = before[0]
    changed.add(Batch({}, (0,)), Answers(before, after, texts=torch.zeros(3, dtype=torch.long)))
    (change,) = changed.found()
    assert (change.token, change.tokens) == (2, 2)


def test_spans_are_places_and_their_words_are_kept_with_the_texts(tiny_model: TinyModel, tmp_path: Path) -> None:
    model = tiny_model("question-answering")
    (tmp_path / "bare").mkdir()
    figures, changes = measured(model, "question-answering", tmp_path / "bare")
    assert 0 < len(changes) == round((1 - figures["agreement"]) * figures["examples"])
    assert all(change.original.startswith("tokens ") for change in changes)
    (tmp_path / "kept").mkdir()
    _, kept = measured(model, "question-answering", tmp_path / "kept", keep_texts=True)
    assert [change.position for change in kept] == [change.position for change in changes]
    for change, bare in zip(kept, changes, strict=True):
        assert change.original.endswith(f" ({bare.original})")


def test_sets_are_named_label_by_label(tiny_model: TinyModel, tmp_path: Path) -> None:
    model = tiny_model("sequence-classification", tmp_path / "model", problem_type="multi_label_classification")
    figures, changes = measured(model, "sequence-classification", tmp_path)
    assert 0 < len(changes) == round((1 - figures["agreement"]) * figures["examples"])
    assert {part for change in changes for part in change.original.split(", ")} <= {
        "LABEL_0", "LABEL_1", "LABEL_2", "none",
    }  # fmt: skip
    assert all(0 <= change.artifact_margin <= 1 for change in changes)


@pytest.mark.parametrize("task", ["encoder", "seq2seq-lm"])
def test_what_decides_on_nothing_or_writes_changes_no_answer(tiny_model: TinyModel, tmp_path: Path, task: Task) -> None:
    assert measured(tiny_model(task), task, tmp_path)[1] == []
    assert has_texts(tmp_path)


def test_what_is_kept_is_read_again_and_what_is_damaged_is_none(tmp_path: Path) -> None:
    common = {"original": "a", "artifact": "b", "artifact_margin": 0.5}
    changes = [Change(position=place, original_margin=place / 10, **common) for place in (1, 3, 2)]
    write_changes(tmp_path, changes)
    found = read_changes(tmp_path, 2)
    assert found
    assert ([change.position for change in found.shown], found.total) == ([3, 2], 3)
    assert read_changes(tmp_path / "nowhere") is None
    (tmp_path / "changed.jsonl").write_text('{"position": 1}\n')
    assert read_changes(tmp_path) is None
