"""A weight of a checkpoint, and where it stands in the model."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch

Role = Literal["linear", "embedding", "convolution", "norm", "bias", "other"]
ROLES: tuple[Role, ...] = get_args(Role)
MATRICES: tuple[Role, ...] = ("linear", "embedding", "convolution")
"""The roles of what is multiplied with, rather than added or scaled by."""
_MATRIX = 2  # axes at least


@dataclass(frozen=True)
class Codes:
    """A matrix, or a stack of them, as integers times scales, restored as `dtype`.

    `values` are integers in the weight's shape; `scale` is float32 of shape () for one scale, has 1 for each axis along
    which values share one, or (groups, 1) in place of an axis that is cut into groups: (rows, 1), (rows, groups, 1).
    With `columns`, float32 (…, 1, columns), `scale` is (…, rows, 1), and each value has one of either.
    """

    values: torch.Tensor
    scale: torch.Tensor
    dtype: torch.dtype
    columns: torch.Tensor | None = None

    def restore(self) -> torch.Tensor:
        """The weight: each product in float32, the rows' first, then rounded to `dtype`."""
        restored = (self._grouped().float() * self.scale).reshape(self.values.shape)
        return (restored if self.columns is None else restored * self.columns).to(self.dtype)

    def extremes(self) -> torch.Tensor:
        """The largest and the smallest value of each scale, as `restore` gives them: rounding keeps their order."""
        if self.columns is not None:
            restored = self.restore()
            return torch.stack([restored.max(), restored.min()]) if restored.numel() else restored.new_zeros(2)
        grouped = self._grouped()
        shared = [axis for axis in range(grouped.ndim) if not self.scale.ndim or self.scale.shape[axis] == 1]
        ends = [end(shared, keepdim=True) for end in (grouped.amax, grouped.amin)]
        return torch.stack([(end.float() * self.scale).to(self.dtype) for end in ends])

    def _grouped(self) -> torch.Tensor:
        axis = grouped_axis(self.values.shape, self.scale.shape)
        return self.values if axis is None else cut(self.values, axis, self.scale.shape[axis])


@dataclass(frozen=True)
class Parts:
    """A matrix as the tensors that another library lays it out in, by their names in the file; `restored` undoes it."""

    tensors: Mapping[str, torch.Tensor]
    restored: Callable[[], torch.Tensor]

    def restore(self) -> torch.Tensor:
        """The matrix as that library computes with it, in the checkpoint's own layout."""
        return self.restored()


def scale_fits(shape: Sequence[int], scale: Sequence[int]) -> bool:
    """Whether codes of `shape` may have a scale of shape `scale`."""
    if len(shape) < _MATRIX:
        return False
    if len(scale) == len(shape):
        return 1 in scale and all(size in (1, whole) for size, whole in zip(scale, shape, strict=True))
    return not scale or grouped_axis(shape, scale) is not None


def grouped_axis(shape: Sequence[int], scale: Sequence[int]) -> int | None:
    """The axis of `shape` that a scale has as many groups of, with an axis of 1 behind it; None where there is none."""
    if len(scale) != len(shape) + 1:
        return None
    for axis in reversed(range(len(shape))):
        groups = scale[axis]
        fits = groups > 0 and shape[axis] % groups == 0
        if fits and tuple(scale) == (*shape[:axis], groups, 1, *shape[axis + 1 :]):
            return axis
    return None


def cut(values: torch.Tensor, axis: int, groups: int) -> torch.Tensor:
    """An axis in so many groups, those of one group along the next axis."""
    shape = values.shape
    return values.reshape(*shape[:axis], groups, shape[axis] // groups, *shape[axis + 1 :])


@dataclass(frozen=True)
class Weight:
    """A named tensor of the checkpoint, or the codes that a stage left in its place.

    `role` is None for what no stage may touch: tensors that the model does not know, and those in parts. `module` is
    the path of the module that holds it, None if the model does not know it; `input_axis` is the axis that a linear
    weight multiplies (0 for GPT-2's Conv1D, which stores its weight transposed; -2 for experts that do).
    """

    name: str
    stored: torch.Tensor | Codes | Parts
    role: Role | None
    module: str | None = None
    input_axis: int = -1

    @property
    def tensor(self) -> torch.Tensor:
        """Its values; restored from its codes each time that they are asked for."""
        return self.stored if isinstance(self.stored, torch.Tensor) else self.stored.restore()

    @property
    def codes(self) -> Codes | None:
        """Its integers and scales, None where it has none."""
        return self.stored if isinstance(self.stored, Codes) else None

    def with_tensor(self, tensor: torch.Tensor) -> "Weight":
        """The same weight with another value."""
        return replace(self, stored=tensor)

    def with_codes(self, codes: Codes) -> "Weight":
        """The same weight as codes."""
        return replace(self, stored=codes)

    def with_parts(self, parts: Parts) -> "Weight":
        """The same weight as parts, which no later stage touches."""
        return replace(self, stored=parts, role=None)


Weights = Callable[[], Iterable[Weight]]


@dataclass(frozen=True)
class Place:
    """A tensor's name in the model, the path of its module, its role, and the axis that a linear weight multiplies."""

    parameter: str
    module: str
    role: Role
    input_axis: int
