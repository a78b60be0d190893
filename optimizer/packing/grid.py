"""Scales on a logarithmic grid: powers of two to the 64th part of whole numbers, which two bytes name exactly."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]

PER_OCTAVE = 64
_OF_ONE_OCTAVE = np.array([2.0 ** (part / PER_OCTAVE) for part in range(PER_OCTAVE)], np.float32)
_LARGEST = 126 * PER_OCTAVE
"""Beyond it a float32 is not a normal number any more."""


def scales(exponents: Tensor) -> Tensor:
    """Two to the power of these 64ths of whole numbers (int16), float32; the same on every machine."""
    whole = exponents.numpy().astype(np.int32)
    # Only the 64 constants come of a rounding; what is left is the exponent of a float.
    return torch.from_numpy(np.ldexp(_OF_ONE_OCTAVE[whole % PER_OCTAVE], whole // PER_OCTAVE))


def exponents(values: Tensor) -> Tensor | None:
    """The exponents (int16) of which `scales` makes exactly these values; None where there are none."""
    if not bool((values > 0).all()) or not bool(torch.isfinite(values).all()):
        return None
    nearest = torch.round(values.double().log2() * PER_OCTAVE)
    if nearest.numel() and nearest.abs().max() > _LARGEST:
        return None
    found = nearest.to(torch.int16)
    return found if torch.equal(scales(found), values) else None
