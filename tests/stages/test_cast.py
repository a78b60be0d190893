"""Casting: rounded, never overflowing silently, integers untouched."""

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

import optimizer
from optimizer.errors import StageError
from optimizer.model.loading import load
from optimizer.model.weight import Weight
from optimizer.stages.cast import Cast
from optimizer.stages.cast import cast as cast_tensor

HALVES = [torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("source", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (5, 7)])
def test_every_shape_and_dtype(shape: tuple[int, ...], source: torch.dtype, dtype: torch.dtype) -> None:
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(source)
    after = cast_tensor(tensor, dtype, "a")
    assert (after.shape, after.dtype) == (shape, dtype)
    assert torch.equal(after, tensor.to(dtype))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.uint8, torch.bool])
def test_what_is_no_float_stays(dtype: torch.dtype) -> None:
    tensor = torch.tensor([0, 1, 1]).to(dtype)
    after = cast_tensor(tensor, torch.float16, "a")
    assert after.dtype == dtype
    assert torch.equal(after, tensor)


def test_an_overflow_names_the_weight_and_its_largest_value() -> None:
    tensor = torch.tensor([1.0, -123456.0, 70000.0, math.inf, math.nan])
    with pytest.raises(StageError) as caught:
        list(Cast(dtype="float16").prepare(list, tiny.CONTEXT)(Weight("layer.weight", tensor, "linear")))
    assert str(caught.value) == (
        "layer.weight: its largest value 123456 is beyond float16's 65504; "
        "write dtype: bfloat16, or leave it out with skip: ['layer.weight']"
    )


def test_an_overflow_of_bfloat16_does_not_advise_bfloat16() -> None:
    tensor = torch.tensor([1e300], dtype=torch.float64)
    with pytest.raises(StageError) as caught:
        list(Cast(dtype="bfloat16").prepare(list, tiny.CONTEXT)(Weight("a", tensor, "linear")))
    assert str(caught.value) == (
        "a: its largest value 1e+300 is beyond bfloat16's 3.38953e+38; leave it out with skip: ['a']"
    )


def test_the_largest_value_that_rounds_down_passes() -> None:
    limit = torch.finfo(torch.float16).max
    assert cast_tensor(torch.tensor([limit, limit + 15, -limit]), torch.float16, "a").tolist() == [limit, limit, -limit]
    with pytest.raises(StageError):
        cast_tensor(torch.tensor([limit + 16]), torch.float16, "a")


@pytest.mark.parametrize("dtype", HALVES)
def test_infinity_and_nan_stay_without_an_error(dtype: torch.dtype) -> None:
    after = cast_tensor(torch.tensor([math.inf, -math.inf, math.nan, 1.0]), dtype, "a")
    assert after[:2].tolist() == [math.inf, -math.inf]
    assert after[2].isnan()


@pytest.mark.parametrize(
    ("compute", "as_stored", "loads_as"),
    [
        ("float32", False, "float32"),
        ("stored", False, "bfloat16"),
        ("stored", True, "bfloat16"),
        ("auto", False, "float32"),
        ("auto", True, "bfloat16"),
    ],
)
def test_the_stage(compute: Any, as_stored: bool, loads_as: str) -> None:
    def never() -> Any:
        raise AssertionError("the weights were read")

    stage = Cast(dtype="bfloat16", compute=compute)
    weight = Weight("a", torch.tensor([1.0, 2.0]), "norm", "module", 0)
    (after,) = stage.prepare(never, tiny.CONTEXT)(weight)
    assert after.tensor.dtype == torch.bfloat16
    assert (after.name, after.role, after.module, after.input_axis) == ("a", "norm", "module", 0)
    assert weight.tensor.dtype == torch.float32
    config = {"torch_dtype": "float64"} | ({"quantization_config": {"quant_method": "other"}} if as_stored else {})
    before = tiny.outline(weight.tensor, torch.tensor([1, 2]), config=config)
    outline = stage.outline(before, before.places)
    assert outline.config == {key: value for key, value in config.items() if key != "torch_dtype"} | {"dtype": loads_as}
    assert [entry.dtype for entry in outline.entries.values()] == [torch.bfloat16, torch.int64]
    assert stage.outline(replace(before, casts=True), before.places).config["dtype"] == (
        "bfloat16" if compute == "stored" else "float32"
    )


@pytest.mark.parametrize(
    ("stages", "dtype", "remedy"),
    [
        ({"cast": {"dtype": "bfloat16", "compute": "stored"}}, "bfloat16", "compute: float32"),
        ({"bitsandbytes": {}, "cast": {"compute": "auto"}}, "float16", "format=packed"),
    ],
)
def test_a_model_that_loads_in_float32_alone(tmp_path: Path, stages: dict[str, Any], dtype: str, remedy: str) -> None:
    original = tiny.save(tiny.xlnet(), tmp_path / "model")
    line = f"stages.cast: compute: transformers loads parts of 'xlnet' in float32 beside {dtype}; write {remedy}"
    with pytest.raises(StageError, match=f"^{re.escape(line)}$"):
        tiny.staged(original, stages)
    # What is refused: once this computes, the refusal may go.
    with pytest.raises(RuntimeError, match="expected scalar type Float"), torch.no_grad():
        load(original, dtype=getattr(torch, dtype))(**tiny.INPUTS)
    mended = stages | {"cast": {"compute": "auto"}} if remedy == "format=packed" else {"cast": {"dtype": dtype}}
    tiny.optimize(original, tmp_path / "artifact", mended, format="packed")
    with torch.no_grad():
        assert optimizer.load(tmp_path / "artifact")(**tiny.INPUTS).logits.isfinite().all()
