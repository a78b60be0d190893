"""A weight of a checkpoint, and where it stands in the model."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch

Role = Literal["linear", "embedding", "convolution", "norm", "bias", "other"]
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True)
class Codes:
    """A matrix as integers times scales, restored as `dtype`.

    `values` is an integer matrix; `scale` float32 of shape () for one scale, (rows, 1), or (rows, groups, 1).
    """

    values: torch.Tensor
    scale: torch.Tensor
    dtype: torch.dtype

    def restore(self) -> torch.Tensor:
        """The matrix: each product in float32, then rounded to `dtype`."""
        grouped = self.values
        if self.scale.ndim == 3:
            rows, groups, _ = self.scale.shape
            grouped = grouped.reshape(rows, groups, self.values.shape[1] // groups)
        return (grouped.float() * self.scale).reshape(self.values.shape).to(self.dtype)


def scale_fits(shape: Sequence[int], scale: Sequence[int]) -> bool:
    """Whether codes of `shape` may have a scale of shape `scale`."""
    if len(shape) != 2 or len(scale) not in (0, 2, 3):
        return False
    rows, columns = shape
    if len(scale) < 3:
        return tuple(scale) in ((), (rows, 1))
    groups = scale[1]
    return tuple(scale) == (rows, groups, 1) and groups > 0 and columns % groups == 0


@dataclass(frozen=True)
class Weight:
    """A named tensor of the checkpoint.

    `role` is None for what no stage may touch: tensors that the model does not know, and codes with their scales.
    `module` is the path of the module that holds it, None if the model does not know it; `input_axis` is
    the axis that a linear weight multiplies (0 for GPT-2's Conv1D, which stores its weight transposed). A quantized
    weight has `codes`, and `tensor` is what they restore to.
    """

    name: str
    tensor: torch.Tensor
    role: Role | None
    module: str | None = None
    input_axis: int = -1
    codes: Codes | None = None

    def with_tensor(self, tensor: torch.Tensor) -> "Weight":
        """The same weight with another value."""
        return replace(self, tensor=tensor, codes=None)

    def with_codes(self, codes: Codes) -> "Weight":
        """The same weight as codes."""
        return replace(self, tensor=codes.restore(), codes=codes)


Weights = Callable[[], Iterable[Weight]]


@dataclass(frozen=True)
class Place:
    """A tensor's name in the model, the path of its module, its role, and the axis that a linear weight multiplies."""

    parameter: str
    module: str
    role: Role
    input_axis: int
