"""Quantization: exact integers and scales, never further from a value than its step allows."""

import math
from typing import Any

import pytest
import tiny
import torch

from optimizer.errors import StageError
from optimizer.model.weight import Codes, Role, Weight, scale_fits
from optimizer.stages.quantize import Quantize, quantize

FLOATS = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
ROUNDING = 1e-5  # of float32 products, as a share of a step of 8 bits


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def through(tensor: torch.Tensor, role: Role = "linear", input_axis: int = -1, **settings: Any) -> Weight:
    """What the stage makes of a weight."""
    before = Weight("layer.weight", tensor, role, "layer", input_axis)
    stage, outline = Quantize(**settings), tiny.outline(tensor, input_axis=input_axis)
    entry = stage.outline(outline, outline.places).entries["0"]
    (after,) = stage.prepare(list, tiny.CONTEXT)(before)
    assert (entry.quantized is not None) == (after.codes is not None) or not tensor.numel()
    assert (after.name, after.role, after.module, after.input_axis) == ("layer.weight", role, "layer", input_axis)
    assert (after.tensor.shape, after.tensor.dtype) == (tensor.shape, tensor.dtype)
    return after


def codes_of(tensor: torch.Tensor, **settings: Any) -> Codes:
    after = through(tensor, **settings)
    assert after.codes is not None
    assert scale_fits(tensor.shape, after.codes.scale.shape)
    assert after.codes.scale.dtype == torch.float32
    assert torch.equal(after.codes.restore(), after.tensor)
    return after.codes


# bits


@pytest.mark.parametrize("bits", range(2, 9))
def test_rows_are_within_half_a_step(bits: int) -> None:
    tensor = random(16, 48) * torch.logspace(-3, 3, 16)[:, None]
    codes = codes_of(tensor, bits=bits)
    largest = 2 ** (bits - 1) - 1
    assert codes.scale.shape == (16, 1)
    assert torch.equal(codes.scale, tensor.abs().amax(1, keepdim=True) / largest)
    assert codes.values.dtype == torch.int8
    assert codes.values.abs().amax(1).tolist() == [largest] * 16
    assert ((codes.restore() - tensor).abs() <= codes.scale * (0.5 + ROUNDING)).all()


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("group", [2, 16, 48])
def test_groups_are_rows_of_their_own(bits: int, group: int) -> None:
    tensor = random(6, 48) * torch.logspace(-3, 3, 48)
    codes = codes_of(tensor, bits=bits, group=group)
    assert codes.scale.shape == (6, 48 // group, 1)
    as_rows = codes_of(tensor.reshape(-1, group), bits=bits)
    assert torch.equal(codes.values.reshape(-1, group), as_rows.values)
    assert torch.equal(codes.scale.reshape(-1, 1), as_rows.scale)


@pytest.mark.parametrize("settings", [{"bits": 8}, {"bits": 4, "group": 4}], ids=str)
def test_each_expert_of_a_stack_is_as_if_it_were_alone_whichever_way_it_is_stored(settings: dict[str, Any]) -> None:
    experts = random(3, 6, 8) * torch.logspace(-2, 2, 3)[:, None, None]
    stacked = codes_of(experts, **settings)
    turned = codes_of(experts.mT.contiguous(), input_axis=-2, **settings)
    assert torch.equal(turned.values.mT, stacked.values)
    assert torch.equal(turned.restore().mT, stacked.restore())
    assert turned.scale.numel() == stacked.scale.numel() == experts.numel() // settings.get("group", 8)
    for number, expert in enumerate(experts):
        alone = codes_of(expert, **settings)
        assert torch.equal(stacked.values[number], alone.values)
        assert torch.equal(stacked.scale[number], alone.scale)


def test_outputs_have_a_scale_where_the_inputs_are_the_rows() -> None:
    matrix = random(8, 6) * torch.logspace(-3, 3, 6)
    codes = codes_of(matrix, input_axis=0, bits=8)
    assert codes.scale.shape == (1, 6)
    assert torch.equal(codes.values.T, codes_of(matrix.T.contiguous(), bits=8).values)


def test_a_convolution_has_a_scale_for_each_kernel() -> None:
    kernels = random(5, 3, 2, 2) * torch.logspace(-3, 3, 5)[:, None, None, None]
    codes = codes_of(kernels, role="convolution", bits=8)
    assert codes.scale.shape == (5, 1, 1, 1)
    assert torch.equal(codes.values.flatten(1), codes_of(kernels.flatten(1), bits=8).values)


def test_known_codes() -> None:
    codes = codes_of(torch.tensor([[1.0, -0.4, 0.2, 0.0], [0.0, 0.0, 0.0, 0.0], [-7.0, 3.4, 3.5, -3.5]]), bits=4)
    assert codes.scale.flatten().tolist() == [torch.tensor(1 / 7).item(), 1.0, 1.0]
    assert codes.values.tolist() == [[7, -3, 1, 0], [0, 0, 0, 0], [-7, 3, 4, -4]]


def test_two_bits_are_three_levels() -> None:
    assert sorted(set(codes_of(random(8, 64), bits=2).values.flatten().tolist())) == [-1, 0, 1]


def test_a_row_of_zeros_stays_zero_and_disturbs_no_other() -> None:
    tensor = random(3, 8)
    tensor[1] = 0
    after = through(tensor, bits=8)
    assert not after.tensor[1].any()
    assert torch.equal(after.tensor[::2], through(tensor[::2], bits=8).tensor)


def test_a_row_too_small_for_a_scale_becomes_zero() -> None:
    tensor = torch.tensor([[1e-45, -1e-45], [1.0, 2.0]])
    for settings in ({"bits": 8}, {"bits": 8, "group": 2}):
        codes = codes_of(tensor, **settings)
        assert codes.values.tolist() == [[0, 0], [64, 127]]
        assert codes.scale.flatten()[0] == 1
    assert not codes_of(tensor[:1], step=0.25).values.any()


def test_a_group_that_does_not_divide_the_rows_is_refused() -> None:
    with pytest.raises(StageError) as caught:
        through(random(4, 48), bits=4, group=32)
    assert str(caught.value) == "0: its rows of 48 are no multiple of group: 32; write another group"


# step


@pytest.mark.parametrize("step", [0.001, 0.25, 1.5, 16])
@pytest.mark.parametrize("spread", [1e-6, 1.0, 1e6])
def test_a_step_in_standard_deviations(step: float, spread: float) -> None:
    tensor = random(32, 48) * spread
    codes = codes_of(tensor, step=step)
    expected = tensor.double().std(correction=0) * step
    assert codes.scale.shape == ()
    assert codes.scale.item() == pytest.approx(expected.item(), rel=1e-6)
    assert ((codes.restore() - tensor).abs() <= codes.scale * (0.5 + 1e-3)).all()
    assert torch.equal(codes.values, (tensor / codes.scale).round())


def test_a_step_takes_as_many_levels_as_it_needs() -> None:
    tensor = random(64, 64)
    levels = [len(set(codes_of(tensor, step=step).values.flatten().tolist())) for step in (3.0, 1.0, 0.25, 0.01)]
    assert levels == sorted(levels)
    assert levels[0] == 3
    assert levels[-1] > 256


def test_the_codes_are_as_narrow_as_they_can_be() -> None:
    tensor = torch.zeros(1, 10_000)
    for outlier, dtype in ((127.0, torch.int8), (128.0, torch.int16), (40_000.0, torch.int32)):
        values = torch.cat([tensor, torch.tensor([[1.0, -outlier]])], 1)
        codes = quantize(values, torch.ones(()), 0.0, torch.float32)
        assert codes.values.dtype == dtype
        assert codes.values[0, -2:].tolist() == [1, -outlier]


@pytest.mark.parametrize("value", [3.0, -3.0])
def test_a_constant_matrix_is_exact(value: float) -> None:
    codes = codes_of(torch.full((4, 6), value), step=0.25)
    assert codes.scale.item() == 0.75
    assert set(codes.values.flatten().tolist()) == {4 * math.copysign(1, value)}
    assert torch.equal(codes_of(torch.full((4, 6), value), bits=3).restore(), torch.full((4, 6), value))


def test_a_matrix_of_zeros() -> None:
    for settings in ({"step": 0.25}, {"bits": 2}, {"bits": 8, "group": 3}):
        codes = codes_of(torch.zeros(4, 6), **settings)
        assert not codes.values.any()
        assert (codes.scale == 1).all()


def test_one_value() -> None:
    for settings in ({"step": 0.5}, {"bits": 8}):
        assert through(torch.tensor([[-2.5]]), **settings).tensor.tolist() == [[-2.5]]


def test_values_too_many_steps_from_zero_are_refused() -> None:
    tensor = torch.ones(1000, 1000)
    tensor[0, 0] += 1e-7
    with pytest.raises(StageError) as caught:
        through(tensor, step=0.25)
    assert str(caught.value) == (
        "layer.weight: its values are 2**31 steps or more from zero; leave it out with skip: ['layer.weight']"
    )


# the dead zone


@pytest.mark.parametrize("dead_zone", [0.0, 0.3, 0.999])
def test_the_dead_zone_widens_the_zero_by_its_share_of_a_step(dead_zone: float) -> None:
    ratios = torch.linspace(-4, 4, 8001, dtype=torch.float64)[None].float()
    codes = quantize(ratios, torch.ones(()), dead_zone, torch.float32).values
    zeros = ratios[codes == 0]
    assert zeros.min().item() == pytest.approx(-0.5 - dead_zone / 2, abs=0.002)
    assert zeros.max().item() == pytest.approx(0.5 + dead_zone / 2, abs=0.002)
    # All other intervals keep their width; each begins later by half of what the zero took.
    for code in (1, 2, 3):
        inside = ratios[codes == code]
        assert inside.min().item() == pytest.approx(code - 0.5 + dead_zone / 2, abs=0.002)
        assert torch.equal(codes, -codes.flip(1))
    assert (codes.sign() * ratios.sign() >= 0).all()


def test_the_dead_zone_goes_with_bits_and_with_step() -> None:
    tensor = random(32, 64)
    for settings in ({"bits": 4}, {"bits": 4, "group": 8}, {"step": 0.5}):
        plain, widened = codes_of(tensor, **settings), codes_of(tensor, dead_zone=0.5, **settings)
        assert torch.equal(plain.scale, widened.scale)
        assert (plain.values == 0).sum() < (widened.values == 0).sum()
        assert ((plain.values.int() - widened.values).abs() <= 1).all()


# what it is given


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("settings", [{"bits": 8}, {"bits": 4, "group": 8}, {"step": 0.25}], ids=str)
def test_the_dtype_is_restored(dtype: torch.dtype, settings: dict[str, Any]) -> None:
    tensor = random(8, 16).to(dtype)
    codes = codes_of(tensor, **settings)
    assert codes.dtype == dtype
    assert codes.restore().dtype == dtype
    # It is what the same values in float32 give, rounded once.
    assert torch.equal(codes.restore(), codes_of(tensor.float(), **settings).restore().to(dtype))


def test_a_view_is_treated_like_its_copy_and_left_alone() -> None:
    tensor = random(48, 16)
    before = tensor.clone()
    for settings in ({"bits": 8}, {"bits": 8, "group": 16}, {"step": 0.25}):
        assert torch.equal(through(tensor.T, **settings).tensor, through(tensor.T.contiguous(), **settings).tensor)
    assert torch.equal(tensor, before)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("settings", [{"bits": 8}, {"step": 0.25}], ids=str)
def test_what_is_not_finite_is_refused(value: float, settings: dict[str, Any]) -> None:
    tensor = random(4, 4)
    tensor[2, 1] = value
    with pytest.raises(StageError) as caught:
        through(tensor, **settings)
    assert str(caught.value) == (
        "layer.weight: holds values that are not finite in float32; leave it out with skip: ['layer.weight']"
    )


def test_what_float32_cannot_hold_is_refused() -> None:
    with pytest.raises(StageError, match=r"^layer\.weight: holds values that are not finite in float32; "):
        through(torch.tensor([[1e300, 1.0]], dtype=torch.float64), bits=8)


def test_what_its_dtype_cannot_hold_after_rounding_is_refused() -> None:
    tensor = torch.tensor([[65504, -65504, 60000, 0]], dtype=torch.float16)
    assert through(tensor, bits=8).tensor.tolist() == [[65504, -65504, 59840, 0]]
    with pytest.raises(StageError) as caught:
        through(tensor, step=1.5)
    assert str(caught.value) == (
        "layer.weight: its largest value is rounded beyond its dtype; leave it out with skip: ['layer.weight']"
    )


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(1.5),
        torch.tensor([1.0, 2.0]),
        torch.ones(2, 3, dtype=torch.int64),
        torch.empty(0, 4),
        torch.empty(4, 0),
    ],
    ids=["0-d", "1-d", "integers", "no rows", "no columns"],
)
@pytest.mark.parametrize("settings", [{"bits": 8}, {"bits": 4, "group": 2}, {"step": 0.25}], ids=str)
def test_what_is_no_matrix_stays(tensor: torch.Tensor, settings: dict[str, Any]) -> None:
    after = through(tensor, **settings)
    assert after.codes is None
    assert after.tensor is tensor


def test_the_weights_are_not_read_beforehand_and_the_config_stays() -> None:
    def never() -> Any:
        raise AssertionError("the weights were read")

    Quantize(bits=8).prepare(never, tiny.CONTEXT)
    before = tiny.outline(random(4, 4), config={"dtype": "float32"})
    assert Quantize(bits=8).outline(before, before.places).config == before.config
