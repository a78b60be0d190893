"""A weight of a checkpoint, and where it stands in the model."""

from collections.abc import Callable, Iterable, Mapping, Sequence
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
        grouped = self._grouped()
        return (grouped.float() * self.scale).reshape(self.values.shape).to(self.dtype)

    def extremes(self) -> torch.Tensor:
        """The largest and the smallest value of each scale, as `restore` gives them: rounding keeps their order."""
        grouped = self._grouped()
        axes = -1 if self.scale.ndim else (0, 1)
        ends = [end(axes, keepdim=bool(self.scale.ndim)) for end in (grouped.amax, grouped.amin)]
        return torch.stack([(end.float() * self.scale).to(self.dtype) for end in ends])

    def _grouped(self) -> torch.Tensor:
        if self.scale.ndim < 3:
            return self.values
        rows, groups, _ = self.scale.shape
        return self.values.reshape(rows, groups, self.values.shape[1] // groups)


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
    if len(shape) != 2 or len(scale) not in (0, 2, 3):
        return False
    rows, columns = shape
    if len(scale) < 3:
        return tuple(scale) in ((), (rows, 1))
    groups = scale[1]
    return tuple(scale) == (rows, groups, 1) and groups > 0 and columns % groups == 0


@dataclass(frozen=True)
class Weight:
    """A named tensor of the checkpoint, or the codes that a stage left in its place.

    `role` is None for what no stage may touch: tensors that the model does not know, and those in parts. `module` is
    the path of the module that holds it, None if the model does not know it; `input_axis` is the axis that a linear
    weight multiplies (0 for GPT-2's Conv1D, which stores its weight transposed).
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
