"""A histogram in a few bytes: the shares of the symbols by a tree of bisections, as coarse as the data allow.

A table of exact counts would cost more than it saves on a few thousand symbols. Here the commonest symbol may be set
apart; the others are halved as long as telling the share of a half pays, and the last are taken as equally common.

A histogram is a sequence of choices, each one out of a known number of equally likely ones. All that follows from the
choices is integer arithmetic, so that every machine gets the same shares. Of `count` data and `alphabet` symbols:

- out of 2: whether a symbol is set apart. If so, out of `alphabet`: which; out of levels + 1: its share, of all;
- for the others in order, and again for each half of a half: nothing at all for a single symbol, or where fewer than
  `MIN_COUNT` data are to be expected; else, out of 2, whether to bisect. If so (the first half has half of the symbols,
  rounded down) out of levels + 1: its share, then the first half's choices, then the second's.

Where e data are expected, levels are max(2, isqrt(4 e / 5)): what the statistical error leaves to tell. Level k of n
stands for the share k^2 (3 n - 2 k) / n^3, which is near sin^2(pi k / 2 n): a scale on which the error is the same
everywhere. 0 and n mean none and all. A symbol's final share is that of its part divided by the symbols of the part.
"""

from collections.abc import Callable
from math import asin, isqrt, log2, sin
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Choices = list[tuple[int, int]]
"""Pairs of a number of possibilities and the one chosen."""

UNIT_BITS = 40
UNIT = 1 << UNIT_BITS
"""The share of all symbols together."""
MIN_COUNT = 6


def plan(counts: Array) -> tuple[float, Choices]:
    """Choose the histogram for symbols counted so often; returns the bits of it and of the data, and its choices."""
    total = int(counts.sum())
    bits, choices = _plan_part(_sums(counts), 0, counts.size, UNIT, total)
    apart = int(counts.argmax())
    levels = _levels(total)
    level, apart_bits = _nearest(int(counts[apart]), total, levels)
    weight = UNIT - _share(UNIT, level, levels)
    rest_bits, rest = _plan_part(_sums(np.delete(counts, apart)), 0, counts.size - 1, weight, total)
    apart_bits += log2(counts.size) + rest_bits
    if apart_bits < bits:
        return 1 + apart_bits, [(2, 1), (counts.size, apart), (levels + 1, level), *rest]
    return 1 + bits, [(2, 0), *choices]


def shares(choose: Callable[[int], int], alphabet: int, count: int) -> list[int]:
    """Follow the choices, each given for its number of possibilities; returns the symbols' shares of `UNIT`."""
    if not choose(2):
        weights = [0] * alphabet
        _read_part(choose, weights, 0, alphabet, UNIT, count)
        return weights
    apart = choose(alphabet)
    levels = _levels(count)
    weight = _share(UNIT, choose(levels + 1), levels)
    weights = [0] * (alphabet - 1)
    _read_part(choose, weights, 0, alphabet - 1, UNIT - weight, count)
    return [*weights[:apart], weight, *weights[apart:]]


def _plan_part(sums: list[int], low: int, high: int, weight: int, total: int) -> tuple[float, Choices]:
    """Plan the symbols from `low` below `high`: the better of taking them as equal and of bisecting them."""
    count = sums[high] - sums[low]
    flat = count * log2(high - low)
    expected = weight * total >> UNIT_BITS
    if high - low == 1 or expected < MIN_COUNT:
        return flat, []
    if not count:
        return 1.0, [(2, 0)]
    middle = (low + high) // 2
    levels = _levels(expected)
    level, bits = _nearest(sums[middle] - sums[low], count, levels)
    first = _share(weight, level, levels)
    choices = [(2, 1), (levels + 1, level)]
    for start, end, part in ((low, middle, first), (middle, high, weight - first)):
        if bits < flat:
            part_bits, part_choices = _plan_part(sums, start, end, part, total)
            bits += part_bits
            choices += part_choices
    return (bits + 1, choices) if bits < flat else (flat + 1, [(2, 0)])


def _read_part(choose: Callable[[int], int], weights: list[int], low: int, high: int, weight: int, total: int) -> None:
    expected = weight * total >> UNIT_BITS
    if high - low > 1 and expected >= MIN_COUNT and choose(2):
        levels = _levels(expected)
        first = _share(weight, choose(levels + 1), levels)
        middle = (low + high) // 2
        _read_part(choose, weights, low, middle, first, total)
        _read_part(choose, weights, middle, high, weight - first, total)
    else:
        weights[low:high] = [weight // (high - low)] * (high - low)


def _nearest(count: int, total: int, levels: int) -> tuple[int, float]:
    """Return the level of a share that is `count` of `total`, and the bits of it and of telling the data by it."""
    bits = log2(levels + 1)
    if count in (0, total):
        return (levels if count else 0), bits
    # The inverse of the polynomial; rounding may differ between machines, and costs nothing but a few bits then.
    exact = levels * (0.5 - sin(asin(1 - 2 * count / total) / 3))
    level = min(max(round(exact), 1), levels - 1)
    share = _share(UNIT, level, levels) / UNIT
    return level, bits - count * log2(share) - (total - count) * log2(1 - share)


def _levels(expected: int) -> int:
    return max(2, isqrt(expected * 4 // 5))


def _share(weight: int, level: int, levels: int) -> int:
    return weight * level**2 * (3 * levels - 2 * level) // levels**3


def _sums(counts: Array) -> list[int]:
    sums: list[int] = [0, *np.cumsum(counts).tolist()]
    return sums
