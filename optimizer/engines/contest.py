"""Which of two ways to run a batch is faster, on a machine that others may use too."""

import time
from collections.abc import Callable

import numpy as np

_MARGIN = 0.02
"""What takes memory of its own has to save more of the time than a contest of two equals would show."""

_ROUNDS = (5, 100)
_SECONDS = 1.0  # for both, as far as the rounds allow


def is_faster(challenger: Callable[[], object], champion: Callable[[], object]) -> bool:
    """Whether the challenger clearly takes less time; the two take turns, and take turns in who goes first.

    Each round is compared by itself, and the median decides: what others do slows both of a round, or few rounds.
    """
    both = (challenger, champion)
    once = sum(map(_seconds, both))  # memory is taken, and code made for the shape
    fewest, most = _ROUNDS
    taken: tuple[list[float], list[float]] = ([], [])
    for turn in range(int(min(most, max(fewest, _SECONDS / once)))):
        for side in (0, 1) if turn % 2 else (1, 0):
            taken[side].append(_seconds(both[side]))
    ratio = np.median(np.divide(*taken))
    return bool(ratio < 1 - _MARGIN)


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
