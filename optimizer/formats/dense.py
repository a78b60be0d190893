"""The dense format: every tensor as it is, which transformers reads without this package."""

from typing import Any

import torch

from optimizer.formats.safetensors import Safetensors
from optimizer.model.outline import Entry
from optimizer.model.weight import Weight


class Dense(Safetensors):
    """Plain safetensors."""

    name = "dense"
    how_to_load = "The format is `dense`: plain `from_pretrained` loads it as well, without this package."
    casts = False

    def store(self, weight: Weight, threads: int) -> torch.Tensor:
        """Its values."""
        return weight.tensor

    def restore(self, stored: torch.Tensor) -> torch.Tensor:
        """As it is."""
        return stored

    def codes(self, stored: torch.Tensor) -> torch.Tensor:
        """The values themselves: codes are restored before they are stored."""
        return stored

    def configure(self, config: dict[str, Any]) -> dict[str, Any]:
        """As it is."""
        return config

    def bits(self, entry: Entry) -> float:
        """Those of its dtype; those of codes only where another library reads them."""
        return entry.quantized.bits if entry.quantized and entry.quantized.fixed else entry.plain_bits
