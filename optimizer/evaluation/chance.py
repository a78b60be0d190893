"""Whether a difference is more than chance: the same texts answered twice, rightly or wrongly.

`original` and `artifact` are `[texts]` of bool: what each has right.
"""

import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from optimizer.evaluation.agreement import wilson

Right = NDArray[np.bool_]

_RESAMPLES = 2000
_CONFIDENCE = 0.95


def mcnemar(original: Right, artifact: Right) -> float:
    """The exact two-sided p-value that both are right equally often (McNemar, Psychometrika 12, 1947)."""
    from scipy.special import bdtr

    lost, won = int((original & ~artifact).sum()), int((artifact & ~original).sum())
    return min(1.0, 2 * float(bdtr(min(lost, won), lost + won, 0.5)))


def drop_interval(original: Right, artifact: Right, groups: Sequence[Hashable] | None = None) -> tuple[float, float]:
    """The 95 % interval of the share that the artifact has right less often than the original.

    Newcombe's for paired proportions (Statistics in Medicine 17, 1998, method 10); of texts that belong together in
    `groups` the percentiles of 2,000 seeded resamples of whole groups.
    """
    return _newcombe(original, artifact) if groups is None else _resampled(original, artifact, groups)


def _newcombe(original: Right, artifact: Right) -> tuple[float, float]:
    count = len(original)
    both, lost = int((original & artifact).sum()), int((original & ~artifact).sum())
    won, neither = int((artifact & ~original).sum()), int((~original & ~artifact).sum())
    first, second = (both + lost) / count, (both + won) / count
    (low, high), (other_low, other_high) = wilson(both + lost, count), wilson(both + won, count)
    margins = (both + lost) * (won + neither) * (both + won) * (lost + neither)
    excess = float(both * neither - lost * won)
    if excess > 0:
        excess = max(excess - count / 2, 0)  # the correction for continuity that method 10 has
    phi = excess / math.sqrt(margins) if margins else 0.0
    below, above = _side(first - low, other_high - second, phi), _side(second - other_low, high - first, phi)
    return first - second - below, first - second + above


def _side(one: float, other: float, phi: float) -> float:
    return math.sqrt(max(0.0, one**2 - 2 * phi * one * other + other**2))


def _resampled(original: Right, artifact: Right, groups: Sequence[Hashable]) -> tuple[float, float]:
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    owner = np.array([numbers[group] for group in groups])
    sizes = np.bincount(owner).astype(float)
    losses = np.bincount(owner, weights=original.astype(float) - artifact.astype(float))
    generator = np.random.default_rng(0)
    drops = []
    for _ in range(_RESAMPLES):
        drawn = generator.integers(len(numbers), size=len(numbers))
        drops.append(losses[drawn].sum() / sizes[drawn].sum())
    low, high = np.quantile(drops, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return float(low), float(high)
