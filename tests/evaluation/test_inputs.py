"""Tokenizing, cutting, padding and batching; random inputs where there is nothing to tokenize."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import ASTConfig, AutoTokenizer, Wav2Vec2Config

from optimizer.data.texts import DataSettings, Text, Texts
from optimizer.errors import EvaluationError
from optimizer.evaluation.inputs import Inputs, batches, prepare
from optimizer.evaluation.random_inputs import RandomInputs
from optimizer.model.task import Task

TinyModel = Callable[..., Path]
SHARED = Path(__file__).parents[2] / "../shared"


def texts(*values: Text) -> Texts:
    return Texts(values, None, "some.txt", "0", DataSettings())


def inputs(directory: Path, task: Task, *values: Text, seed: int = 0) -> Inputs:
    return prepare(directory, task, texts(*values), seed)


def ids(found: Inputs, count: int | None = None) -> dict[int, list[int]]:
    return {position: example["input_ids"].tolist() for position, example in found.examples(count).items()}


def test_texts_are_tokenized_as_the_tokenizer_does_without_padding(tiny_model: TinyModel) -> None:
    found = inputs(tiny_model("sequence-classification"), "sequence-classification", "the cat", "a dog sees the bird")
    assert found.data == "some.txt"
    assert ids(found) == {0: [2, 5, 7, 3], 1: [2, 6, 8, 11, 5, 9, 3]}


def test_pairs_have_two_segments(tiny_model: TinyModel) -> None:
    found = inputs(tiny_model("question-answering"), "question-answering", ("the cat", "a dog"))
    assert ids(found) == {0: [2, 5, 7, 3, 6, 8, 3]}
    assert found.examples(None)[0]["token_type_ids"].tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_what_a_model_does_not_take_is_not_given(tiny_model: TinyModel, tmp_path: Path) -> None:
    directory = tiny_model("causal-lm", tmp_path / "model")
    shutil.copy(tiny_model("encoder") / "tokenizer.json", directory)
    shutil.copy(tiny_model("encoder") / "tokenizer_config.json", directory)
    assert "token_type_ids" in AutoTokenizer.from_pretrained(directory)("the cat")
    (directory / "config.json").write_text(
        json.dumps({"architectures": ["DistilBertModel"], "model_type": "distilbert", "dim": 32, "n_heads": 2})
    )
    assert set(inputs(directory, "encoder", "the cat").examples(None)[0]) == {"input_ids"}


def test_long_texts_are_cut_at_the_tokenizers_limit(tiny_model: TinyModel) -> None:
    found = inputs(tiny_model("sequence-classification"), "sequence-classification", "the " * 99)
    assert len(ids(found)[0]) == 32
    assert ids(found)[0][-1] == 3


def test_without_a_limit_the_models_positions_count(tiny_model: TinyModel) -> None:
    assert AutoTokenizer.from_pretrained(tiny_model("causal-lm")).model_max_length > 1e20
    assert len(ids(inputs(tiny_model("causal-lm"), "causal-lm", "the " * 99))[0]) == 32


def test_without_positions_either_it_is_512(tiny_model: TinyModel) -> None:
    assert len(ids(inputs(tiny_model("seq2seq-lm"), "seq2seq-lm", "the " * 999))[0]) == 512


def test_positions_that_start_after_the_paddings_are_fewer(tiny_model: TinyModel, tmp_path: Path) -> None:
    directory = tiny_model("causal-lm", tmp_path / "model")
    config = {"architectures": ["RobertaModel"], "model_type": "roberta", "max_position_embeddings": 20}
    size = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1, "vocab_size": 30, "pad_token_id": 1}
    (directory / "config.json").write_text(json.dumps(config | size))
    assert len(ids(inputs(directory, "encoder", "the " * 99))[0]) == 18


def test_padding_and_truncation_in_a_tokenizers_file_are_put_aside(tiny_model: TinyModel, tmp_path: Path) -> None:
    directory = tiny_model("sequence-classification", tmp_path / "model")
    path = directory / "tokenizer.json"
    values: dict[str, Any] = json.loads(path.read_text())
    values["truncation"] = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
    values["padding"] = {
        "strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]",
    }  # fmt: skip
    path.write_text(json.dumps(values))
    found = ids(inputs(directory, "sequence-classification", "the cat", "the " * 99))
    assert [len(example) for example in found.values()] == [4, 32]


def test_a_sample_is_the_seeds_and_keeps_positions(tiny_model: TinyModel) -> None:
    directory = tiny_model("sequence-classification")
    many = [f"the {'cat ' * number}" for number in range(20)]
    first = ids(inputs(directory, "sequence-classification", *many), 5)
    assert first == ids(inputs(directory, "sequence-classification", *many), 5)
    assert first.keys() != ids(inputs(directory, "sequence-classification", *many, seed=1), 5).keys()
    assert len(first) == 5
    assert all(len(example) == 3 + position for position, example in first.items())
    assert len(ids(inputs(directory, "sequence-classification", *many), 99)) == 20


def test_texts_without_a_token_are_left_out(tiny_model: TinyModel) -> None:
    directory = tiny_model("causal-lm")
    assert list(ids(inputs(directory, "causal-lm", "", "the", " "))) == [1]
    empty = inputs(directory, "causal-lm", "", " ")
    with pytest.raises(EvaluationError, match=r"some\.txt: no text has a token"):
        empty.examples(None)
    with pytest.raises(EvaluationError, match=r"some\.txt: no text has a token"):
        empty.block(2, 8)


def test_a_block_is_full_of_running_text(tiny_model: TinyModel) -> None:
    directory = tiny_model("sequence-classification")
    block = inputs(directory, "sequence-classification", "the cat", "a dog").block(3, 12)
    assert block["input_ids"].shape == (3, 12)
    assert block["attention_mask"].all()
    assert block["input_ids"][0].tolist() == [2, 5, 7, 6, 8, 5, 7, 6, 8, 5, 7, 3]
    assert block["input_ids"][1].tolist() == [2, 6, 8, 5, 7, 6, 8, 5, 7, 6, 8, 3]


def test_a_block_is_no_longer_than_the_model_takes(tiny_model: TinyModel) -> None:
    assert inputs(tiny_model("causal-lm"), "causal-lm", "the cat").block(2, 999)["input_ids"].shape == (2, 32)


def test_a_tokenizer_that_cannot_be_loaded_is_an_error_in_one_line(tiny_model: TinyModel, tmp_path: Path) -> None:
    directory = tiny_model("encoder", tmp_path / "model")
    (directory / "tokenizer.json").write_text("{")
    with pytest.raises(EvaluationError, match="the tokenizer in 'model' cannot be loaded: ") as caught:
        inputs(directory, "encoder", "x")
    assert "\n" not in str(caught.value)


def test_a_bare_sentencepiece_model_tokenizes_as_sentencepiece_does() -> None:
    directory = SHARED / "models" / "stories260k"
    if not directory.exists():
        pytest.skip("needs a model that is not shipped")
    sentencepiece = pytest.importorskip("sentencepiece")
    text = "Once upon a time there was a cat."
    expected = sentencepiece.SentencePieceProcessor(str(directory / "tokenizer.model")).encode(text)
    assert ids(inputs(directory, "causal-lm", text)) == {0: expected}


def test_without_a_tokenizer_tokens_are_random(tiny_model: TinyModel, tmp_path: Path) -> None:
    directory = tiny_model("causal-lm", tmp_path / "model")
    for path in directory.glob("tokenizer*"):
        path.unlink()
    found = inputs(directory, "causal-lm", "the cat")
    assert found.data == "random"
    assert ids(found) == ids(inputs(directory, "causal-lm", "the cat"))
    assert ids(found) != ids(inputs(directory, "causal-lm", "the cat", seed=1))
    assert {len(example) for example in ids(found).values()} == {32}
    assert max(max(example) for example in ids(found).values()) < 25
    assert len(ids(found, 3)) == 3
    assert found.block(2, 8)["input_ids"].shape == found.block(2, 8)["attention_mask"].shape == (2, 8)


def test_images_are_random_in_the_models_shape(tiny_model: TinyModel) -> None:
    found = inputs(tiny_model("image-classification"), "image-classification", "the cat")
    assert found.data == "random"
    assert found.examples(None)[0]["pixel_values"].shape == (3, 8, 8)
    assert {name: values.shape for name, values in found.block(2, 99).items()} == {"pixel_values": (2, 3, 8, 8)}


@pytest.mark.parametrize(
    ("config", "shape"),
    [(Wav2Vec2Config(), (16_000,)), (ASTConfig(max_length=100, num_mel_bins=16), (100, 16))],
    ids=["wave", "spectrogram"],
)
def test_sound_is_random_in_the_models_shape(config: Any, shape: tuple[int, ...]) -> None:
    class Model:
        main_input_name = "input_values"

    model = Model()
    model.config = config  # type: ignore[attr-defined]
    assert RandomInputs(model, 0).examples(1)[0]["input_values"].shape == shape


def test_a_model_with_other_inputs_is_an_error() -> None:
    class Model:
        main_input_name = "smells"

    with pytest.raises(EvaluationError, match="no random inputs are known for 'smells'"):
        RandomInputs(Model(), 0).examples(1)


def examples(*lengths: int) -> dict[int, dict[str, torch.Tensor]]:
    return {
        position: {"input_ids": torch.full((length,), position + 1), "token_type_ids": torch.ones(length).long()}
        for position, length in enumerate(lengths)
    }


def test_batches_hold_every_example_once_longest_first_and_padded() -> None:
    found = list(batches(examples(1, 3, 2, 3, 1), 2, pad_id=9, logits_per_token=1))
    assert [batch.positions for batch in found] == [(1, 3), (2, 0), (4,)]
    assert found[1].inputs["input_ids"].tolist() == [[3, 3], [1, 9]]
    assert found[1].inputs["attention_mask"].tolist() == [[1, 1], [1, 0]]
    assert found[1].inputs["token_type_ids"].tolist() == [[1, 1], [1, 0]]


def test_batches_are_smaller_where_logits_are_many() -> None:
    found = list(batches(examples(*[1024] * 4), 4, pad_id=0, logits_per_token=2**16))
    assert [len(batch.positions) for batch in found] == [2, 2]
    assert len(list(batches(examples(1024), 4, pad_id=0, logits_per_token=2**40))) == 1
