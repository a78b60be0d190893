"""Steps by how much the answers depend on each row and column of each matrix, for a budget of bits; errors fed back.

A change E of a linear module's weight moves the answers by the sum over outputs of g E S E^T / 2, with g the Fisher
information of an output and S the second moments of the inputs (see `calibration.statistics`). At one price for a bit
everywhere, the step of a value is then in proportion to 1 / sqrt(g), and to 1 / l of its column, S = L L^T. The columns
are rounded one after the other, and what each has lost is made up for by those that follow: Frantar et al., GPTQ
(2023); with entropy-coded steps: WaterSIC, arXiv 2603.04956.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optimizer.calibration.statistics import Linear, Rows, Statistics
from optimizer.errors import StageError
from optimizer.model.weight import Codes, Place, Weight, Weights
from optimizer.packing import grid
from optimizer.packing.entropy import shannon_bits
from optimizer.packing.grid import PER_OCTAVE

_ROUNDED = PER_OCTAVE // 4
"""Scales of rows and of columns are multiples of a quarter of an octave, against each other."""
_DAMPING = 0.05  # of the mean diagonal: the moments rest on a few thousand tokens
_FLOOR = 0.1  # of the mean over outputs: the least that an output counts, because a large change is no small one
_COARSEST = 1.5  # standard deviations of a row: beyond it nothing of it is left
_LOOKED_UP = PER_OCTAVE // 2
"""By how much coarser the rows of tables are than their gradients say: most of them a text never looks up."""
_PSEUDO = 4  # occurrences of a row with the mean gradient of all, beside its own
_HALF = 0.5  # of an occurrence: what a row that was never looked up counts
_NOTHING = 1e-12  # of the most that a row matters: what one that never matters counts
_TOGETHER = 64  # columns
_SAMPLE = 16  # one row in so many tells where to begin
_PASSES = 5
_WITHIN = 0.004  # of the budget
_LARGEST = torch.iinfo(torch.int16).max
_BEYOND = 2.0 * _LARGEST
_BIT = math.log(2) / 6
"""Squared steps that a bit is worth: at high rates the error is a twelfth, and falls to a quarter with a bit."""
_TABLE = 127  # codes beyond it cost what it costs
_NEVER = 0.02  # of a time: how often a code has been seen that was not
_FINEST, _COARSE = -24 * PER_OCTAVE, 8 * PER_OCTAVE


@dataclass(frozen=True)
class Matrix:
    """A weight `[..., rows, columns]` with columns along its inputs, and what is known of it.

    `steps` are exponents (64ths of octaves) of the scales of rows `[..., rows, 1]` and columns `[..., 1, columns]`, to
    which that of the price is added; `coarsest` is the largest of a row then. `factor` is L, float64, with its inverse
    diagonal rounded as the columns' steps are, None where nothing is fed back.
    """

    name: str
    values: Tensor
    transposed: bool
    dtype: torch.dtype
    rows: Tensor
    columns: Tensor
    coarsest: Tensor
    factor: Tensor | None = None
    is_known: bool = True

    def exponents(self, price: int) -> Tensor:
        """Those of its rows, at a price."""
        return torch.minimum(self.rows + price, self.coarsest)

    def coarser(self, steps: int) -> "Matrix":
        """The same with other steps, if nothing is known of it."""
        return self if self.is_known else replace(self, rows=self.rows + steps)

    def sample(self) -> "Matrix":
        """A few of its rows, without the feedback."""
        flat = self.values.reshape(-1, self.values.shape[-1])[::_SAMPLE]
        rows, most = (
            side.expand((*self.values.shape[:-1], 1)).reshape(-1, 1)[::_SAMPLE] for side in (self.rows, self.coarsest)
        )
        columns = self.columns.reshape(-1, self.columns.shape[-1])[:1]
        return Matrix(self.name, flat, False, self.dtype, rows, columns, most, None, self.is_known)


def allocated(
    weights: Weights, places: Mapping[str, Place], known: Statistics, bits: float, log: Callable[[str], None]
) -> dict[str, Codes]:
    """Codes of every matrix, which take so many bits a value in all, scales included, or a little less.

    StageError for a budget that cannot be had.
    """
    samples = [matrix.sample() for matrix in _matrices(weights, places, known)]
    others = _usual_step(samples)
    samples = [sample.coarser(others) for sample in samples]
    if unknown := [sample.name for sample in samples if not sample.is_known]:
        log(f"quantize: nothing is known of these, which get the steps that are usual elsewhere: {', '.join(unknown)}")

    def matrices() -> Iterator[Matrix]:
        return (matrix.coarser(others) for matrix in _matrices(weights, places, known))

    price = _price(samples, bits)
    tried: list[tuple[int, float]] = []
    best: dict[str, Codes] = {}
    for _ in range(_PASSES):
        found, taken = _coded(matrices(), price)
        tried.append((price, taken))
        log(f"quantize: a price of 2^{price / PER_OCTAVE:.2f} makes {taken:.3f} bits a value")
        if taken <= bits:
            best = found
        if bits * (1 - _WITHIN) <= taken <= bits:
            break
        following = _next_price(tried, bits)
        if any(following == before for before, _ in tried):
            break
        price = following
    if not best:
        raise StageError(
            f"quantize: bits_per_parameter: {bits} cannot be had, {min(t for _, t in tried):.2f} can; write more"
        )
    return best


def _coded(matrices: Iterable[Matrix], price: int) -> tuple[dict[str, Codes], float]:
    found, total, values = {}, 0.0, 0
    for matrix in matrices:
        codes = rounded(matrix, price)
        rows = matrix.exponents(price)
        total += _bits(codes, rows + matrix.columns) + sum(_entropy(side) for side in (rows, matrix.columns))
        values += codes.numel()
        found[matrix.name] = _as_stored(matrix, codes, rows)
    return found, total / max(values, 1)


def _as_stored(matrix: Matrix, codes: Tensor, rows: Tensor) -> Codes:
    """Codes as the checkpoint has the matrix, in the narrowest type that holds them."""
    if codes.numel() and codes.abs().max() > _LARGEST:
        raise StageError(
            f"{matrix.name}: its values are 2**15 steps or more from zero; leave it out with skip: ['{matrix.name}']"
        )
    narrow = torch.int8 if not codes.numel() or codes.abs().max() <= torch.iinfo(torch.int8).max else torch.int16
    codes, rows, columns = codes.to(narrow), rows.to(torch.int16), matrix.columns.to(torch.int16)
    if matrix.transposed:
        codes, rows, columns = codes.mT, columns.mT, rows.mT
    codes, rows, columns = (each.contiguous() for each in (codes, rows, columns))
    return Codes(codes, grid.scales(rows), matrix.dtype, grid.scales(columns))


def rounded(matrix: Matrix, price: int) -> Tensor:
    """The codes of a matrix at a price, in float: those that cost fewer bits where they are hardly further away."""
    rows, columns = _scales(matrix.exponents(price)), _scales(matrix.columns)
    plain = (matrix.values / (rows * columns)).round().clamp(-_BEYOND, _BEYOND)
    costs = Costs.of(plain, matrix.exponents(price) + matrix.columns)
    if matrix.factor is None:
        return costs.cheaper(matrix.values / (rows * columns), slice(None))
    return with_feedback(matrix.values.double(), matrix.factor, rows.double(), columns.double(), costs)


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
    """Whole numbers from 0 for exponents of steps: the same for those within half an octave."""
    kinds = steps // (PER_OCTAVE // 2)
    return (kinds - kinds.min()).long() if kinds.numel() else kinds.long()


def with_feedback(values: Tensor, factor: Tensor, rows: Tensor, columns: Tensor, costs: Costs) -> Tensor:
    """Codes of a matrix `[rows, columns]` in float64, each column rounded with what those after it have lost.

    `factor` is the lower triangular L; `rows` `[rows, 1]` and `columns` `[1, columns]` are the scales.
    """
    left = values @ factor
    codes = torch.empty_like(values)
    diagonal = factor.diagonal()
    for end in range(values.shape[1], 0, -_TOGETHER):
        start = max(0, end - _TOGETHER)
        block, made = left[:, start:end].clone(), torch.empty_like(left[:, start:end])
        for place in reversed(range(start, end)):
            step = rows[:, 0] * columns[0, place]
            code = costs.cheaper((block[:, place - start] / (diagonal[place] * step)).clamp(-_BEYOND, _BEYOND), place)
            codes[:, place] = code
            made[:, place - start] = code * step
            block[:, : place - start + 1] -= made[:, place - start, None] * factor[place, start : place + 1]
        left[:, :start] -= made @ factor[start:end, :start]
    return codes


def _matrices(weights: Weights, places: Mapping[str, Place], known: Statistics) -> Iterator[Matrix]:
    for weight in weights():
        if weight.tensor.ndim > 1 and weight.tensor.is_floating_point() and weight.tensor.numel():
            yield _matrix(weight, places[weight.name], known)


def _matrix(weight: Weight, place: Place, known: Statistics) -> Matrix:
    values = weight.tensor.float()
    if not torch.isfinite(values).all():
        raise StageError(f"{weight.name}: holds values that are not finite; leave it out with skip: ['{weight.name}']")
    transposed = place.role == "linear" and place.input_axis % values.ndim == values.ndim - 2
    values = values.mT if transposed else values
    linear, looked_up = known.linear.get(place.module), known.rows.get(place.module)
    if place.role == "linear" and linear is not None and (len(linear.outputs), len(linear.inputs)) == values.shape:
        return _of_linear(weight, values, transposed, linear)
    if looked_up is not None and len(looked_up.seen) == len(values) and values.ndim == 2:
        return _of_rows(weight, values, looked_up, known.texts)
    spread = _spread(values).expand(*values.shape[:-1], 1)
    rows = _exponents(spread)
    return Matrix(
        weight.name, values, transposed, weight.tensor.dtype, rows, _ones(values), _coarsest(spread), None, False
    )


def _usual_step(samples: Sequence[Matrix]) -> int:
    """By how much the steps of what is known differ from the standard deviations, in the middle of them."""
    apart = [
        float(sample.rows.double().median() + sample.columns.double().median())
        - float(_exponents(_spread(sample.values)))
        for sample in samples
        if sample.is_known
    ]
    return round(statistics.median(apart) / _ROUNDED) * _ROUNDED if apart else 0


def _of_linear(weight: Weight, values: Tensor, transposed: bool, known: Linear) -> Matrix:
    moments = known.inputs.double()
    mean = moments.diagonal().mean().clamp_min(torch.finfo(torch.float64).tiny)
    factor = torch.linalg.cholesky(moments + _DAMPING * mean * torch.eye(len(moments), dtype=torch.float64))
    columns = _exponents(1 / factor.diagonal())[None]
    matters = known.outputs.double()
    rows = _exponents((matters + _FLOOR * matters.mean()).rsqrt())[:, None]
    scaled = (values.double() * factor.diagonal()).square().mean(1).sqrt()
    return Matrix(
        weight.name, values, transposed, weight.tensor.dtype, rows, columns, _coarsest(scaled)[:, None], factor
    )


def _of_rows(weight: Weight, values: Tensor, known: Rows, texts: int) -> Matrix:
    """Rows that are looked up: each by how often, and by the gradients where it was."""
    own, seen = known.gradients.double() * texts, known.seen.double() * texts
    mean = own.sum() / seen.sum().clamp_min(1)
    matters = torch.maximum((seen + _HALF) * (own + _PSEUDO * mean) / (seen + _PSEUDO), own) / texts
    rows = _exponents(matters.clamp_min(matters.max() * _NOTHING).rsqrt())[:, None] + _LOOKED_UP
    return Matrix(
        weight.name,
        values,
        False,
        weight.tensor.dtype,
        rows,
        _ones(values),
        _coarsest(_spread(values)).expand(len(values), 1),
    )


def _ones(values: Tensor) -> Tensor:
    return torch.zeros((*values.shape[:-2], 1, values.shape[-1]), dtype=torch.int32)


def _spread(values: Tensor) -> Tensor:
    return values.double().square().mean().sqrt()


def _coarsest(spread: Tensor) -> Tensor:
    return _exponents(_COARSEST * spread.clamp_min(torch.finfo(torch.float32).tiny))


def _exponents(scales: Tensor) -> Tensor:
    """The nearest exponents, each a multiple of a quarter of an octave."""
    parts = (scales.double().clamp(2.0**-100, 2.0**100).log2() * PER_OCTAVE / _ROUNDED).round() * _ROUNDED
    return parts.to(torch.int32)


def _scales(exponents: Tensor) -> Tensor:
    return grid.scales(exponents.to(torch.int16))


def _price(samples: list[Matrix], bits: float) -> int:
    """Where to begin: what the budget comes to in a sample, without feedback."""
    low, high = _FINEST, _COARSE
    while high - low > 1:
        middle = (low + high) // 2
        _, taken = _coded(samples, middle) if middle > _FINEST else ({}, math.inf)
        low, high = (middle, high) if taken > bits else (low, middle)
    return high


def _next_price(tried: list[tuple[int, float]], bits: float) -> int:
    """By the line through the two nearest to the budget; a step of twice the size saves a bit."""
    (price, taken), *others = sorted(tried, key=lambda one: abs(one[1] - bits))
    aim = bits * (1 - _WITHIN / 2)
    slope = -1 / PER_OCTAVE
    if others and others[0][0] != price and (others[0][1] - taken) / (others[0][0] - price) < slope / 10:
        slope = (others[0][1] - taken) / (others[0][0] - price)
    moved = round((aim - taken) / slope)
    return price + (moved or (1 if taken > bits else -1))


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
