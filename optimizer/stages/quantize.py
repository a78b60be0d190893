"""Uniform quantization of any matrix, linear and embedding alike, to integers that the packed format entropy-codes.

A step for a whole tensor, any number of levels, then entropy coding: Gish and Pierce, Asymptotically Efficient
Quantizing (1968); the dead zone: Sullivan, Efficient Scalar Quantization of Exponential and Laplacian Random
Variables (1996).
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator

from optimizer.calibration.answers import TASKS
from optimizer.errors import StageError
from optimizer.model.outline import Entry, Outline, Quantized
from optimizer.model.weight import Codes, Place, Role, Weight, Weights, cut, grouped_axis
from optimizer.stages.fisher import allocated
from optimizer.stages.stage import Context, Stage, Transform, later

_MATRIX = 2  # axes at least
_STACK = 3  # axes at most, where rows and columns get scales of their own
_HALF = 0.5
_SCALE_BITS = 32
_FINEST = 1e-3
_LARGEST_CODE = torch.iinfo(torch.int32).max


class Quantize(Stage):
    """One of `bits` (2 to 8: symmetric, a scale per output, or per `group` of its neighbouring inputs), `step`, or both
    of `allocate` and `bits_per_parameter`.

    A row of an embedding, and a kernel of a convolution, is an output; of experts in one tensor each has its own.
    `step` is in standard deviations of the weight: one step for the tensor, as many levels as it takes, the better
    trade when entropy-coded. `dead_zone` (0 to 1, in steps) widens the interval that becomes zero.
    `bits_per_parameter` (0.5 to 8) is what a value may take on average, entropy-coded and scales included: with
    `allocate: fisher` calibration texts say which rows and columns get more of it.
    """

    kind: ClassVar[str] = "quantize"
    default_roles: ClassVar[tuple[Role, ...]] = ("linear", "embedding")

    bits: int | None = Field(default=None, ge=2, le=8)
    group: int | None = Field(default=None, ge=2)
    step: float | None = Field(default=None, ge=_FINEST, le=16, allow_inf_nan=False)
    dead_zone: float = Field(default=0.0, ge=0, lt=1)
    allocate: Literal["fisher"] | None = later(None)
    bits_per_parameter: float | None = later(None, ge=0.5, le=8, allow_inf_nan=False)

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        given = [name for name in ("bits", "step", "bits_per_parameter") if getattr(self, name) is not None]
        if not given:
            raise ValueError("bits or step: one of them is required; write bits: 8 or step: 0.25")
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other; remove one")
        if (self.allocate is None) != (self.bits_per_parameter is None):
            raise ValueError(
                "allocate and bits_per_parameter go together; write allocate: fisher, bits_per_parameter: 2.5"
            )
        if self.allocate and self.dead_zone:
            raise ValueError("dead_zone: does not go with allocate; remove it")
        if self.group is not None and self.bits is None:
            raise ValueError("group: goes with bits only; remove it")
        return self

    @property
    def calibrated(self) -> bool:
        """Where the texts say what matters."""
        return self.allocate is not None

    def outline(self, before: Outline, routed: Mapping[str, Place]) -> Outline:
        """Matrices become codes, of a length that groups must divide."""
        if self.allocate and before.task not in TASKS:
            raise StageError(
                f"allocate: no texts can be calibrated on for {before.task}; write recipe=compact, or step: 0.25 in "
                "place of allocate and bits_per_parameter"
            )
        alone = self.leaves_alone(before, routed)
        matrices = [before.entries[name] for name in routed if name not in alone]
        for entry in matrices:
            self._check(entry, routed[entry.name])
        quantized = Quantized(self._stored_bits(), fixed=False)
        return before.with_entries(replace(entry, quantized=quantized) for entry in matrices)

    def _check(self, entry: Entry, place: Place) -> None:
        inputs = entry.shape[place.input_axis]
        if self.group is not None and entry.values and inputs % self.group:
            raise StageError(
                f"{entry.name}: its rows of {inputs} are no multiple of group: {self.group}; write another group"
            )
        if self.allocate and entry.values and (place.role == "convolution" or len(entry.shape) > _STACK):
            raise StageError(
                f"{entry.name}: allocate is for matrices, it is {place.role} of {len(entry.shape)} axes; "
                f"leave it out with skip: ['{entry.name}']"
            )

    def leaves_alone(self, before: Outline, routed: Mapping[str, Place]) -> Mapping[str, str]:
        """What is no matrix of floats."""
        entries = (before.entries[name] for name in routed)
        return {
            entry.name: f"quantize is for matrices, it has {len(entry.shape)} axes in {entry.dtype}"
            for entry in entries
            if len(entry.shape) < _MATRIX or not entry.dtype.is_floating_point
        }

    def _stored_bits(self) -> float:
        """The codes' own bits and their scales', or the entropy of a normal distribution."""
        if self.bits_per_parameter is not None:
            return self.bits_per_parameter
        if self.step is not None:
            return max(1.0, 0.5 * math.log2(2 * math.pi * math.e) - math.log2(self.step))
        assert self.bits is not None
        return self.bits + (_SCALE_BITS / self.group if self.group else 0)

    def prepare(self, weights: Weights, context: Context) -> Transform:
        """Reads the weights only to allocate; those that are no matrix, or an empty one, stay as they are."""
        if self.bits_per_parameter is not None:
            found = allocated(weights, context.routed, context.statistics(), self.bits_per_parameter, context.log)
            return lambda weight: [_coded(weight, found[weight.name]) if weight.name in found else weight]
        return lambda weight: [self._quantized(weight) if _is_matrix(weight) else weight]

    def _quantized(self, weight: Weight) -> Weight:
        remedy = f"leave it out with skip: ['{weight.name}']"
        values = weight.tensor.float()
        if not torch.isfinite(values).all():
            raise StageError(f"{weight.name}: holds values that are not finite in float32; {remedy}")
        if self.step is not None:
            scale = _positive(_spread(values) * self.step)
            if values.abs().max() / scale >= _LARGEST_CODE:
                raise StageError(f"{weight.name}: its values are 2**31 steps or more from zero; {remedy}")
        else:
            assert self.bits is not None
            scale = _scales(values, self.bits, self.group, weight)
        return _coded(weight, quantize(values, scale, self.dead_zone, weight.tensor.dtype))


def _coded(weight: Weight, codes: Codes) -> Weight:
    """The weight as codes; StageError where what they restore is beyond its dtype."""
    if not torch.isfinite(codes.extremes()).all():
        raise StageError(
            f"{weight.name}: its largest value is rounded beyond its dtype; leave it out with skip: ['{weight.name}']"
        )
    return weight.with_codes(codes)


def quantize(values: torch.Tensor, scale: torch.Tensor, dead_zone: float, dtype: torch.dtype) -> Codes:
    """Each value over its scale, as Codes have it, rounded to the nearest integer, `dead_zone` / 2 nearer to zero."""
    axis = grouped_axis(values.shape, scale.shape)
    grouped = values if axis is None else cut(values, axis, scale.shape[axis])
    ratios = grouped / scale
    codes = ratios.sign() * (ratios.abs() - dead_zone / 2 + _HALF).floor().clamp_min(0)
    return Codes(_narrowed(codes.reshape(values.shape)), scale, dtype)


def _spread(values: torch.Tensor) -> torch.Tensor:
    """The standard deviation; of equal values their magnitude."""
    spread = values.double().std(correction=0)
    return (spread if spread > 0 else values.double().abs().max()).float()


def _positive(scale: torch.Tensor) -> torch.Tensor:
    """1 in place of 0: of values that are zero, or so small that their scale is not a float32 any more."""
    return torch.where(scale > 0, scale, torch.ones_like(scale))


def _scales(values: torch.Tensor, bits: int, group: int | None, weight: Weight) -> torch.Tensor:
    """What each output's largest code stands for, over that code; of each group of inputs where there are groups."""
    largest_code = 2 ** (bits - 1) - 1
    axis = weight.input_axis % values.ndim
    if group is not None:
        values, axes = cut(values, axis, values.shape[axis] // group), [axis + 1]
    else:
        axes = list(range(1, values.ndim)) if weight.role == "convolution" else [axis]
    return _positive(values.abs().amax(dim=axes, keepdim=True) / largest_code)


def _narrowed(codes: torch.Tensor) -> torch.Tensor:
    """The codes in the narrowest integer type that holds them."""
    largest = codes.abs().max().item()
    fitting = (dtype for dtype in (torch.int8, torch.int16, torch.int32) if largest <= torch.iinfo(dtype).max)
    return codes.to(next(fitting))


def _is_matrix(weight: Weight) -> bool:
    return weight.tensor.ndim >= _MATRIX and weight.tensor.is_floating_point() and weight.tensor.numel() > 0
