"""Bits where the answers depend on them: one price for a bit everywhere, such that a budget is kept.

The steps that follow from it are those of `steps`, the codes those of `rounding`. Frantar et al., GPTQ (2023); with
entropy-coded steps: WaterSIC, arXiv 2603.04956.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor

from optimizer.calibration.statistics import Statistics
from optimizer.errors import StageError
from optimizer.model.weight import Codes, Place, Weights
from optimizer.packing import grid
from optimizer.packing.grid import PER_OCTAVE
from optimizer.stages.rounding import LARGEST, rounded, taken
from optimizer.stages.steps import Matrix, matrices, usual_step

_PASSES = 5
_FURTHER = PER_OCTAVE // 4  # by which prices rise where the way to the budget was not found
_WITHIN = 0.004  # of the budget
_FINEST, _COARSE = -24 * PER_OCTAVE, 8 * PER_OCTAVE


def allocated(
    weights: Weights, places: Mapping[str, Place], known: Statistics, bits: float, log: Callable[[str], None]
) -> dict[str, Codes]:
    """Codes of every matrix, which take so many bits a value in all, scales included, or a little less.

    StageError for a budget that cannot be had.
    """
    samples = [matrix.sample() for matrix in matrices(weights, places, known)]
    others = usual_step(samples)
    samples = [sample.coarser(others) for sample in samples]
    if unknown := [sample.name for sample in samples if not sample.is_known]:
        log(f"quantize: nothing is known of these, which get the steps that are usual elsewhere: {', '.join(unknown)}")

    def priced() -> Iterator[Matrix]:
        return (matrix.coarser(others) for matrix in matrices(weights, places, known))

    price = _price(samples, bits)
    tried: dict[int, float] = {}
    best: dict[str, Codes] = {}
    most = 0.0
    while len(tried) < _PASSES or (not best and price < _COARSE):
        found, tried[price] = _coded(priced(), price)
        log(f"quantize: a price of 2^{price / PER_OCTAVE:.2f} makes {tried[price]:.3f} bits a value")
        if most < tried[price] <= bits:
            best, most = found, tried[price]
        following = _next_price(tried, bits) if len(tried) < _PASSES else price + _FURTHER
        if most >= bits * (1 - _WITHIN) or (best and following in tried):
            break
        price = price + _FURTHER if following in tried else following
    if not best:
        raise StageError(
            f"quantize: bits_per_parameter: {bits} cannot be had, {min(tried.values()):.2f} can; write more"
        )
    return best


def _coded(priced: Iterable[Matrix], price: int) -> tuple[dict[str, Codes], float]:
    """The codes at a price, and how many bits a value they take."""
    found, total, values = {}, 0.0, 0
    for matrix in priced:
        codes = rounded(matrix, price)
        total += taken(matrix, codes, price)
        values += codes.numel()
        found[matrix.name] = _as_stored(matrix, codes, matrix.exponents(price))
    return found, total / max(values, 1)


def _as_stored(matrix: Matrix, codes: Tensor, rows: Tensor) -> Codes:
    """Codes as the checkpoint has the matrix, in the narrowest type that holds them."""
    if codes.numel() and codes.abs().max() > LARGEST:
        raise StageError(
            f"{matrix.name}: its values are 2**15 steps or more from zero; leave it out with skip: ['{matrix.name}']"
        )
    narrow = torch.int8 if not codes.numel() or codes.abs().max() <= torch.iinfo(torch.int8).max else torch.int16
    codes, rows, columns = codes.to(narrow), rows.to(torch.int16), matrix.columns.to(torch.int16)
    if matrix.transposed:
        codes, rows, columns = codes.mT, columns.mT, rows.mT
    codes, rows, columns = (each.contiguous() for each in (codes, rows, columns))
    return Codes(codes, grid.scales(rows), matrix.dtype, grid.scales(columns))


def _price(samples: list[Matrix], bits: float) -> int:
    """Where to begin: what the budget comes to in a sample, without feedback."""
    low, high = _FINEST, _COARSE
    values = sum(sample.values.numel() for sample in samples)
    while high - low > 1:
        middle = (low + high) // 2
        total = sum(taken(sample, rounded(sample, middle), middle) for sample in samples)
        low, high = (middle, high) if total > bits * values else (low, middle)
    return high


def _next_price(tried: Mapping[int, float], bits: float) -> int:
    """By the line through the two nearest to the budget; a step of twice the size saves a bit."""
    price, *others = sorted(tried, key=lambda price: abs(tried[price] - bits))
    slope = -1 / PER_OCTAVE
    if others and (seen := (tried[others[0]] - tried[price]) / (others[0] - price)) < slope / 10:
        slope = seen
    moved = round((bits * (1 - _WITHIN / 2) - tried[price]) / slope)
    return price + (moved or (1 if tried[price] > bits else -1))
