"""Set near-zero weights to zero (the guide's "compress")."""

from collections.abc import Iterable, Sequence
from typing import ClassVar

import torch
from pydantic import Field

from optimizer.model.weight import Role, Weight, Weights
from optimizer.settings import Settings
from optimizer.stages.stage import Context, Prepared, Stage


class Threshold(Settings):
    """Every value smaller in magnitude than `value` becomes zero."""

    kind: ClassVar[str] = "threshold"
    default_roles: ClassVar[tuple[Role, ...]] = ("linear",)
    makes_codes: ClassVar[bool] = False
    needs_floats: ClassVar[bool] = True
    loads_as_stored: ClassVar[bool] = False

    value: float = Field(ge=0, allow_inf_nan=False)

    def conflict(self, others: Sequence[Stage], output_format: str) -> str | None:
        """None: it goes with every other stage."""
        return None

    def stored_bits(self, bits: float, output_format: str) -> float:
        """As many as before: zeros are not counted on to save anything."""
        return bits

    def prepare(self, weights: Weights, context: Context) -> Prepared:
        """Needs no pass over the weights."""

        def transform(weight: Weight) -> Iterable[Weight]:
            yield weight.with_tensor(zero_below(weight.tensor, self.value))

        return Prepared(transform)


def zero_below(tensor: torch.Tensor, value: float) -> torch.Tensor:
    """A copy with +0.0 wherever the magnitude is strictly below `value`; NaN stays."""
    return tensor.masked_fill(tensor.abs() < value, 0)
