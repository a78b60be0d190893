"""A weight of a checkpoint, and where it stands in the model."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch

Role = Literal["linear", "embedding", "convolution", "norm", "bias", "other"]
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True)
class Weight:
    """A named tensor of the checkpoint.

    `role` is None for what no stage may touch: tensors that the model does not know, and codes with their scales.
    `module` is the path of the module that holds it in the model (checkpoints may use older names); `input_axis` is
    the axis that a linear weight multiplies (0 for GPT-2's Conv1D, which stores its weight transposed).
    """

    name: str
    tensor: torch.Tensor
    role: Role | None
    module: str = ""
    input_axis: int = -1

    def with_tensor(self, tensor: torch.Tensor) -> "Weight":
        """The same weight with another value."""
        return replace(self, tensor=tensor)


Weights = Callable[[], Iterable[Weight]]


@dataclass(frozen=True)
class Place:
    """A tensor's name in the model, the path of its module, its role, and the axis that a linear weight multiplies."""

    parameter: str
    module: str
    role: Role
    input_axis: int
