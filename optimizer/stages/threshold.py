"""Set near-zero weights to zero (the guide's "compress")."""

from typing import ClassVar

import torch
from pydantic import Field

from optimizer.model.weight import Weights
from optimizer.stages.stage import Context, Knob, Stage, Transform


class Threshold(Stage):
    """Every value smaller in magnitude than `value` becomes zero."""

    kind: ClassVar[str] = "threshold"
    knob: ClassVar[Knob] = Knob("threshold", "value")

    value: float = Field(ge=0, allow_inf_nan=False)

    def prepare(self, weights: Weights, context: Context) -> Transform:
        """Needs no pass over the weights."""
        return lambda weight: [weight.with_tensor(zero_below(weight.tensor, self.value))]


def zero_below(tensor: torch.Tensor, value: float) -> torch.Tensor:
    """A copy with +0.0 wherever the magnitude is strictly below `value`; NaN stays."""
    return tensor.masked_fill(tensor.abs() < value, 0)
