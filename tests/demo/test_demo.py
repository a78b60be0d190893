"""The shipped demo holds what it promises, and the script that made it still runs."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from optimizer import demo
from optimizer.demo import grammar, train

SHIPPED_LIMIT_BYTES = 4 * 2**20


@pytest.fixture(scope="module")
def shipped() -> list[grammar.Example]:
    return [grammar.Example(**json.loads(line)) for line in demo.TEXTS.read_text("utf-8").splitlines()]


def test_the_grammar_is_deterministic() -> None:
    assert grammar.generate(11, 300) == grammar.generate(11, 300)
    assert grammar.generate(11, 300)[:100] == grammar.generate(11, 100)
    assert grammar.generate(11, 300) != grammar.generate(12, 300)
    assert grammar.generate(11, 0) == []


def test_every_intent_has_siblings_phrases_and_topics() -> None:
    assert 40 <= len(grammar.labels()) <= 60
    for label, intent in grammar.load().intents.items():
        assert all((intent.phrases, intent.topics, intent.siblings)), label
        assert label not in intent.siblings


def test_phrases_and_topics_belong_to_one_intent() -> None:
    intents = grammar.load().intents.values()
    texts = Counter(text for intent in intents for text in (*intent.phrases, *intent.topics))
    assert [text for text, count in texts.items() if count > 1] == []


def test_generated_messages_are_distinct_filled_and_cover_every_label() -> None:
    examples = grammar.generate(13, 3000)
    assert len({grammar.key(example.text) for example in examples}) == 3000
    assert not any("{" in example.text for example in examples)
    assert {example.label for example in examples} == set(grammar.labels())


def test_excluded_messages_are_not_drawn_again_whatever_their_case_and_punctuation() -> None:
    first = grammar.generate(11, 200)
    disguised = [example.text.upper() + "?!" for example in first]
    again = grammar.generate(11, 200, exclude=disguised)
    assert {grammar.key(example.text) for example in first}.isdisjoint(grammar.key(example.text) for example in again)


def test_shipped_texts_are_the_generated_test_split_and_share_nothing_with_training(
    shipped: list[grammar.Example],
) -> None:
    splits = train.split(train.TRAIN_SIZE, train.VALIDATION_SIZE, train.TEST_SIZE)
    assert splits.test == shipped
    test = {grammar.key(example.text) for example in shipped}
    assert len(test) == len(shipped)
    assert test.isdisjoint(grammar.key(example.text) for example in (*splits.train, *splits.validation))


def test_shipped_sentences_are_varied_and_distinct() -> None:
    sentences = demo.SENTENCES.read_text("utf-8").splitlines()
    lengths = [len(sentence.split()) for sentence in sentences]
    assert len(sentences) == len(set(sentences)) == 200
    assert min(lengths) >= 4
    assert 30 <= max(lengths) <= 40


def test_shipped_model_reaches_its_measured_accuracy(shipped: list[grammar.Example]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(demo.MODEL)
    model = AutoModelForSequenceClassification.from_pretrained(demo.MODEL)
    assert tokenizer.is_fast
    assert tokenizer.model_max_length == train.MAX_TOKENS == model.config.max_position_embeddings
    assert model.dtype == torch.float32
    assert tuple(model.config.id2label.values()) == grammar.labels()
    assert {example.label for example in shipped} == set(model.config.label2id)
    reached = train.accuracy(model, tokenizer, shipped)
    assert 0.93 <= reached <= 0.98
    (stated,) = re.findall(r"0\.\d+", (demo.MODEL / "README.md").read_text("utf-8"))
    assert float(stated) == pytest.approx(reached, abs=0.002)


def test_shipped_files_are_small() -> None:
    files = [path for path in demo.MODEL.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in (*files, demo.TEXTS, demo.SENTENCES)) <= SHIPPED_LIMIT_BYTES


def test_training_leaves_a_loadable_model_and_the_same_bytes_each_time(tmp_path: Path) -> None:
    sizes = ["--steps=2", "--train-size=300", "--validation-size=10", "--test-size=20"]
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        train.main([str(folder), *sizes])

    model = AutoModelForSequenceClassification.from_pretrained(first / "model")
    tokenizer = AutoTokenizer.from_pretrained(first / "model")
    texts = [json.loads(line)["text"] for line in (first / "test.jsonl").read_text("utf-8").splitlines()]
    logits = model(**tokenizer(texts, padding=True, truncation=True, return_tensors="pt")).logits
    assert logits.shape == (20, len(grammar.labels()))
    assert torch.isfinite(logits).all()

    written = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert Path("model/model.safetensors") in written
    for path in written:
        assert (first / path).read_bytes() == (second / path).read_bytes(), path


@pytest.mark.parametrize("option", ["--steps", "--train-size", "--validation-size", "--test-size"])
def test_training_refuses_sizes_below_one(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train.main([str(tmp_path), f"{option}=0"])
    assert f"argument {option}: 0 is not a positive number; write 1 or more" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
