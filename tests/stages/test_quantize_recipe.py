"""Quantization in recipes: what excludes what, and what becomes of a whole model."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file

from optimizer.errors import RecipeError
from optimizer.model.weight import Weight
from optimizer.packing.payload import pack, unpack
from optimizer.recipe import parse


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({}, "bits or step: one of them is required; write bits: 8 or step: 0.25"),
        ({"dead_zone": 0.5}, "bits or step: one of them is required; write bits: 8 or step: 0.25"),
        ({"bits": 8, "step": 0.5}, "bits and step exclude each other; remove one"),
        ({"step": 0.5, "group": 32}, "group: goes with bits only; remove it"),
    ],
)
def test_settings_that_exclude_each_other(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse({"stages": {"quantize": settings}})
    assert str(caught.value) == f"stages.quantize: {line}"


@pytest.mark.parametrize(
    "settings",
    [
        {"bits": 1},
        {"bits": 9},
        {"bits": 4, "group": 1},
        {"step": 0},
        {"step": 0.0009},
        {"step": 17},
        {"step": math.nan},
        {"step": math.inf},
        {"bits": 8, "dead_zone": -0.1},
        {"bits": 8, "dead_zone": 1},
    ],
    ids=str,
)
def test_settings_out_of_range(settings: dict[str, Any]) -> None:
    key = list(settings)[-1]
    with pytest.raises(RecipeError, match=rf"^stages\.quantize\.{key}: "):
        parse({"stages": {"quantize": settings}})


@pytest.mark.parametrize("after", [{"prune": {"amount": 0.3}}, {"bitsandbytes": {}}, {"again": {"stage": "quantize"}}])
def test_what_needs_numbers_cannot_follow_on_the_same_roles(after: dict[str, Any]) -> None:
    ((label, settings),) = after.items()
    settings = settings | ({"bits": 8} if label == "again" else {})
    kind = settings.get("stage", label)
    with pytest.raises(RecipeError) as caught:
        parse({"stages": {"quantize": {"bits": 8}, label: settings}})
    assert str(caught.value) == (
        f"stages.{label}: {kind} cannot follow quantize, which leaves integer codes; write {label} before quantize"
    )
    parse({"stages": {"quantize": {"bits": 8, "roles": ["embedding"]}, label: settings | {"roles": ["linear"]}}})


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tiny.bert(), tmp_path_factory.mktemp("quantize") / "model")


def streamed(original: Path, stages: dict[str, Any]) -> dict[str, Weight]:
    at = tiny.staged(original, stages)
    return {weight.name: weight for shard in at.original.shards for weight in at.stream(shard)}


@pytest.mark.parametrize("settings", [{"bits": 8}, {"bits": 4, "group": 32}, {"step": 0.25}], ids=str)
def test_every_linear_and_embedding_weight_of_a_model(original: Path, settings: dict[str, Any]) -> None:
    for name, weight in streamed(original, {"quantize": settings}).items():
        matrix = name.endswith(".weight") and "LayerNorm" not in name
        assert (weight.codes is not None) == matrix, name
        assert torch.equal(unpack(pack(weight), weight.tensor.shape), weight.tensor)


def test_a_vector_among_the_routed_weights_stays(original: Path) -> None:
    found = streamed(original, {"quantize": {"bits": 2, "roles": ["linear", "norm", "bias"]}})
    before = load_file(original / "model.safetensors")
    for name in ("bert.embeddings.LayerNorm.weight", "bert.pooler.dense.bias"):
        assert found[name].codes is None
        assert torch.equal(found[name].tensor, before[name])
    assert found["bert.pooler.dense.weight"].codes is not None


def test_a_cast_afterwards_keeps_the_codes(original: Path) -> None:
    stages = {"quantize": {"step": 0.25}, "cast": {"dtype": "bfloat16"}}
    before, after = streamed(original, {"quantize": {"step": 0.25}}), streamed(original, stages)
    name = "bert.pooler.dense.weight"
    expected, found = before[name].codes, after[name].codes
    assert expected is not None
    assert found is not None
    assert torch.equal(found.values, expected.values)
    assert torch.equal(found.scale, expected.scale)
    assert found.dtype == torch.bfloat16
    assert torch.equal(after[name].tensor, before[name].tensor.bfloat16())
    assert torch.equal(found.restore(), after[name].tensor)


def test_a_cast_before_is_what_is_restored(original: Path) -> None:
    found = streamed(original, {"cast": {}, "quantize": {"bits": 8}})["bert.pooler.dense.weight"]
    assert found.codes is not None
    assert found.codes.dtype == found.tensor.dtype == torch.float16


def test_zeros_stay_zeros(original: Path) -> None:
    """Pruned before, whatever the step: that is what makes zeros cheap."""
    pruned = streamed(original, {"prune": {"amount": 0.5}})
    after = streamed(original, {"prune": {"amount": 0.5}, "quantize": {"bits": 8}})
    for name, weight in pruned.items():
        codes = after[name].codes
        if codes is not None:
            assert not codes.values[weight.tensor == 0].any()


@pytest.mark.parametrize("settings", [{"bits": 3, "group": 16}, {"step": 0.5, "dead_zone": 0.3}], ids=str)
def test_dense_and_packed_hold_the_same_numbers(original: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    stages = {"quantize": settings, "cast": {}}
    tiny.optimize(original, tmp_path / "dense", stages)
    tiny.optimize(original, tmp_path / "packed", stages, format="packed")
    dense = load_file(tmp_path / "dense" / "model.safetensors")
    packed = load_file(tmp_path / "packed" / "model.safetensors")
    assert set(dense) == set(packed)
    payloads = {name for name, tensor in packed.items() if tensor.dtype == torch.uint8}
    assert len(payloads) == 17
    for name, tensor in packed.items():
        restored = unpack(tensor) if name in payloads else tensor
        assert restored.dtype == torch.float16
        assert torch.equal(restored, dense[name]), name
    assert "quantization_config" not in json.loads((tmp_path / "dense" / "config.json").read_text())
