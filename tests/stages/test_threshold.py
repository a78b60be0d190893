"""The threshold: strictly below it is zero, nothing else changes."""

import math
from typing import Any

import pytest
import tiny
import torch

from optimizer.model.weight import Weight
from optimizer.stages.threshold import Threshold, zero_below


def test_strictly_below_becomes_zero() -> None:
    tensor = torch.tensor([0.5, -0.5, 0.25, -0.25, 0.125, -0.125])
    assert zero_below(tensor, 0.25).tolist() == [0.5, -0.5, 0.25, -0.25, 0.0, 0.0]


def test_the_zero_is_positive() -> None:
    assert zero_below(torch.tensor([-0.125, -0.0]), 0.25).view(torch.int32).tolist() == [0, 0]


def test_zero_changes_nothing() -> None:
    tensor = torch.tensor([-0.0, 1e-45, 0.0])
    assert zero_below(tensor, 0).view(torch.int32).tolist() == tensor.view(torch.int32).tolist()


def test_nan_and_infinity_stay() -> None:
    after = zero_below(torch.tensor([math.nan, math.inf, -math.inf, 0.1]), 1e30)
    assert after.isnan().tolist() == [True, False, False, False]
    assert after[1:].tolist() == [math.inf, -math.inf, 0.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (5, 7)])
def test_every_shape_and_dtype(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    after = zero_below(torch.full(shape, 0.5, dtype=dtype), 1.0)
    assert (after.shape, after.dtype) == (shape, dtype)
    assert after.count_nonzero() == 0


def test_a_second_time_changes_nothing() -> None:
    tensor = torch.randn(20, 20, generator=torch.Generator().manual_seed(0))
    once = zero_below(tensor, 0.5)
    assert 0 < int((once == 0).sum()) < once.numel()
    assert torch.equal(zero_below(once, 0.5), once)


def test_a_view_is_treated_like_its_copy_and_left_alone() -> None:
    tensor = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    before = tensor.clone()
    after = zero_below(tensor.T, 0.5)
    assert torch.equal(after, zero_below(tensor.T.contiguous(), 0.5))
    after.fill_(7)
    assert torch.equal(tensor, before)


def test_the_stage_reads_nothing_beforehand_and_changes_one_weight_at_a_time() -> None:
    def never() -> Any:
        raise AssertionError("the weights were read")

    prepared = Threshold(value=0.25).prepare(never, tiny.CONTEXT)
    weight = Weight("a", torch.tensor([0.25, 0.1]), "linear", "module", 0)
    (after,) = prepared(weight)
    assert after.tensor.tolist() == [0.25, 0.0]
    assert (after.name, after.role, after.module, after.input_axis) == ("a", "linear", "module", 0)
    before = tiny.outline(weight.tensor)
    assert Threshold(value=0.25).outline(before, before.places) == before
