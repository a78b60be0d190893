"""Scales on the grid: exact, the same on every machine."""

from decimal import Decimal, getcontext

import numpy as np
import torch

from optimizer.packing.grid import exponents, scales


def test_every_exponent_comes_back() -> None:
    whole = torch.arange(-8064, 8065, dtype=torch.int16)
    found = exponents(scales(whole))
    assert found is not None
    assert torch.equal(found, whole)


def test_scales_are_the_nearest_float_to_the_power() -> None:
    getcontext().prec = 40
    for part in range(-130, 131):
        exact = Decimal(2) ** (Decimal(part) / 64)
        value = scales(torch.tensor([part], dtype=torch.int16)).numpy()[0]
        around = (np.nextafter(value, np.float32(0)), np.nextafter(value, np.float32(np.inf)))
        assert all(abs(Decimal(float(value)) - exact) < abs(Decimal(float(other)) - exact) for other in around)


def test_what_is_not_on_the_grid_has_no_exponents() -> None:
    for value in (0.3, 0.0, -1.0, float("inf"), float("nan"), 2.0**-130):
        assert exponents(torch.tensor([1.0, value])) is None
