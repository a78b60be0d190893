"""Proposals by halving: the least value of one setting that meets the gates, where more of it meets them sooner."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from optimizer.search.space import Range, Search, is_within
from optimizer.search.trials import Trial

_CLOSE = 0.01  # of the value: nearer than that, agreement on some thousand texts is chance
_NEAR_THE_END = 0.25  # of the most there is: what misses the gates this near to it leaves that alone to try


def propose(goal: Search, own: Mapping[str, Any], trials: Sequence[Trial], number: int) -> Mapping[str, Any] | None:
    """The value to try next: a Proposer, whose first is what the recipe itself says where that is in the range.

    Halfway between the largest that missed a gate and the least that met them all, then; on a log scale if the range
    has one. Trials of one setting follow from each other, so that while one runs there is no next.
    """
    ((key, span),) = goal.ranges.items()
    assert isinstance(span, Range)
    if any(trial.row is None for trial in trials):
        return None
    if not trials and is_within(own[key], span):
        return {key: own[key]}
    ended = [(trial.values[key], trial.row is not None and trial.row.status == "ok") for trial in trials]
    good = min((value for value, meets in ended if meets), default=None)
    bad = max((value for value, meets in ended if not meets and (good is None or value < good)), default=None)
    if good is None and bad == span.high:
        return None  # the most there is misses them
    if good is None and bad is not None and span.high - bad <= _NEAR_THE_END * span.high:
        return {key: span.high}
    low, high = span.low if bad is None else bad, span.high if good is None else good
    if high - low <= _CLOSE * high:
        return None
    return {key: _halfway(span, low, high)}


def _halfway(span: Range, low: float, high: float) -> float:
    return math.sqrt(low * high) if span.log else (low + high) / 2
