"""Outlines: what is known without values, small enough to travel, and what stages leave of it."""

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import torch
from transformers import PreTrainedModel

from optimizer.model.checkpoint import Checkpoint, open_checkpoint
from optimizer.model.outline import sketch
from optimizer.model.weight import ROLES
from optimizer.recipe import parse

LARGEST_BYTES = 100_000


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_checkpoint(tiny.save(tiny.bert(), tmp_path_factory.mktemp("outline") / "model"))


def test_it_tells_of_each_tensor_what_the_headers_show(checkpoint: Checkpoint) -> None:
    entries = checkpoint.outline.entries
    for weight in checkpoint.weights():
        entry = entries[weight.name]
        assert (entry.shape, entry.dtype, entry.file) == (
            tuple(weight.tensor.shape),
            weight.tensor.dtype,
            "model.safetensors",
        )
        assert entry.place is not None
        assert (entry.place.role, entry.place.module) == (weight.role, weight.module)
    assert checkpoint.outline.parameters == sum(weight.tensor.numel() for weight in checkpoint.weights())


def test_a_pickle_has_the_dtypes_of_its_tensors(tmp_path: Path) -> None:
    opened = open_checkpoint(tiny.save_legacy(tiny.bert().half(), tmp_path / "model"))
    assert {entry.dtype for entry in opened.outline.entries.values()} == {torch.float16}


@pytest.mark.parametrize("build", [tiny.bert, tiny.wav2vec2], ids=["bert", "wav2vec2"])
def test_what_travels_to_a_child_is_small_and_no_model(build: Callable[[], PreTrainedModel], tmp_path: Path) -> None:
    """torch refuses to pickle Wav2Vec2's parametrized convolution."""
    opened = open_checkpoint(tiny.save(build(), tmp_path / "model"))
    pickled = pickle.dumps(opened)
    assert len(pickled) < LARGEST_BYTES
    assert b"Linear" not in pickled.replace(b"linear", b"")
    arrived = pickle.loads(pickled)
    assert arrived.outline == opened.outline
    assert type(arrived.model) is type(opened.model)


def test_what_a_recipe_leaves_is_known_without_reading_a_value(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Checkpoint, "weights_of", None)
    steps = {"quantize": {"bits": 4, "group": 32, "roles": ["embedding"]}, "bitsandbytes": {}, "cast": {}}
    last = parse({"stages": steps, "format": "packed"}).laid(checkpoint.outline)[-1].after
    found = {name: entry.quantized for name, entry in last.entries.items()}
    embedding = found["bert.embeddings.word_embeddings.weight"]
    linear = found["bert.pooler.dense.weight"]
    assert embedding is not None
    assert linear is not None
    assert (embedding.bits, embedding.fixed) == (5.0, False)
    assert (linear.bits, linear.fixed) == (8, True)
    assert found["classifier.weight"] is None
    assert last.entries["classifier.weight"].dtype == torch.float16
    assert last.config["quantization_config"]["load_in_8bit"]
    assert (last.config["dtype"], last.method) == ("float32", "bitsandbytes")


def test_a_key_of_the_config_is_changed_or_removed_and_others_stay() -> None:
    outline = tiny.outline(config={"a": None, "b": 1, "c": 2})
    assert outline.with_config(b=3, c=None, d=4, e=None).config == {"a": None, "b": 3, "d": 4}


def test_a_sketch_has_a_matrix_of_each_role() -> None:
    assert {place.role for place in sketch().places.values()} == set(ROLES)
