"""The codes of a matrix whose steps are known: those that cost fewer bits where they are hardly further away.

Errors are fed back where the inputs are known: see `feedback`. Rounding by rate and distortion: Wiedemann et al.,
DeepCABAC (2020).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optimizer.packing import grid
from optimizer.packing.classes import WIDTH
from optimizer.packing.entropy import shannon_bits
from optimizer.stages.feedback import chosen
from optimizer.stages.steps import Matrix

LARGEST = torch.iinfo(torch.int16).max
_BEYOND = 2.0 * LARGEST
_BIT = math.log(2) / 6
"""Squared steps that a bit is worth: at high rates the error is a twelfth, and falls to a quarter with a bit."""
_TABLE = 127  # codes beyond it cost what it costs
_NEVER = 0.02  # of a time: how often a code has been seen that was not


def rounded(matrix: Matrix, price: int) -> Tensor:
    """The codes of a matrix at a price, in float."""
    rows, columns = _scales(matrix.exponents(price)), _scales(matrix.columns)
    plain = (matrix.values / (rows * columns)).round().clamp(-_BEYOND, _BEYOND)
    costs = Costs.of(plain, matrix.exponents(price) + matrix.columns)
    if matrix.factor is None:
        return costs.cheaper(matrix.values / (rows * columns), slice(None))
    return with_feedback(matrix.values.double(), matrix.factor, rows.double(), columns.double(), costs)


def taken(matrix: Matrix, codes: Tensor, price: int) -> float:
    """What a matrix takes in bits, its scales included."""
    rows = matrix.exponents(price)
    return _bits(codes, rows + matrix.columns) + sum(_entropy(side) for side in (rows, matrix.columns))


@dataclass(frozen=True)
class Costs:
    """What codes cost: `bits[kind, code + largest]`, float32, with a kind for each value, by its step."""

    kinds: Tensor
    bits: Tensor
    largest: int

    @classmethod
    def of(cls, codes: Tensor, steps: Tensor) -> "Costs":
        """As these codes are distributed among those of steps alike."""
        kinds = _kinds(steps).expand(codes.shape)
        largest = min(int(codes.abs().max()), _TABLE) if codes.numel() else 0
        width = 2 * largest + 1
        symbols = codes.clamp(-largest, largest).long() + largest
        count = int(kinds.max()) + 1 if codes.numel() else 1
        counts = torch.bincount((kinds * width + symbols).flatten(), minlength=count * width).reshape(count, width)
        shares = (counts + _NEVER) / (counts + _NEVER).sum(1, keepdim=True)
        return cls(kinds, -shares.log2(), largest)

    def cheaper(self, ratios: Tensor, places: Any) -> Tensor:
        """For values over their steps the integer of least squared error plus price of its bits: the nearest, the next
        one nearer to zero, or zero; `places` are theirs among the kinds.
        """
        kinds = self.kinds[..., places]
        nearest = ratios.round()
        best, least = nearest, self._cost(ratios, nearest, kinds)
        for code in (nearest - nearest.sign(), torch.zeros_like(nearest)):
            cost = self._cost(ratios, code, kinds)
            best, least = torch.where(cost < least, code, best), torch.minimum(cost, least)
        return best

    def _cost(self, ratios: Tensor, codes: Tensor, kinds: Tensor) -> Tensor:
        symbols = codes.clamp(-self.largest, self.largest).long() + self.largest
        return (ratios - codes).square() + _BIT * self.bits[kinds, symbols]


def _kinds(steps: Tensor) -> Tensor:
    """Whole numbers from 0 for exponents of steps: the same for those that the packed format codes together."""
    kinds = steps // WIDTH
    return (kinds - kinds.min()).long() if kinds.numel() else kinds.long()


def with_feedback(values: Tensor, factor: Tensor, rows: Tensor, columns: Tensor, costs: Costs) -> Tensor:
    """Codes of a matrix `[rows, columns]` in float64, each column rounded with what those after it have lost.

    `factor` is that of `feedback`; `rows` `[rows, 1]` and `columns` `[1, columns]` are the scales.
    """
    codes = torch.empty_like(values)

    def choose(place: int, best: Tensor) -> Tensor:
        step = rows[:, 0] * columns[0, place]
        codes[:, place] = costs.cheaper((best / step).clamp(-_BEYOND, _BEYOND), place)
        return codes[:, place] * step

    chosen(values, factor, choose)
    return codes


def _scales(exponents: Tensor) -> Tensor:
    return grid.scales(exponents.to(torch.int16))


def _bits(codes: Tensor, steps: Tensor) -> float:
    """What the codes take when those of steps alike have a histogram of their own."""
    if not codes.numel():
        return 0.0
    kinds, symbols = _kinds(steps).expand(codes.shape), (codes - codes.min()).long()
    span = int(symbols.max()) + 1
    counts = torch.bincount((kinds * span + symbols).flatten(), minlength=(int(kinds.max()) + 1) * span)
    return sum(shannon_bits(each.numpy()) for each in counts.reshape(-1, span))


def _entropy(side: Tensor) -> float:
    return shannon_bits(np.unique(side.numpy(), return_counts=True)[1])
