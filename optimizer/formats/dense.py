"""The dense format: every tensor as it is, which transformers reads without this package."""

from typing import Any

import torch

from optimizer.model.weight import Weight


def store(weight: Weight) -> torch.Tensor:
    """What is written for a weight: its values."""
    return weight.tensor


def configure(config: dict[str, Any]) -> dict[str, Any]:
    """config.json as it is."""
    return config
