"""Whether a loss is chance: against scipy, a published example, and counts done by hand."""

import numpy as np
import pytest
from scipy.stats import binomtest

from optimizer.evaluation.chance import drop_interval, mcnemar


def table(both: int, lost: int, won: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """What original and artifact have right, from how many texts there are of each case."""
    counts = (both, lost, won, neither)
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (1, 0), (0, 5), (3, 3), (12, 2), (40, 61), (1500, 1400)])
def test_mcnemar_is_the_exact_test_of_the_texts_that_one_alone_has_right(lost: int, won: int) -> None:
    expected = binomtest(lost, lost + won).pvalue if lost + won else 1.0
    assert mcnemar(*table(20, lost, won, 7)) == pytest.approx(expected, abs=1e-9)


def test_newcombes_interval_is_the_one_in_his_paper() -> None:
    # Statistics in Medicine 17, 1998, p. 2645: 20 both, 12 and 2 one alone, 16 neither; method 10.
    assert drop_interval(*table(20, 12, 2, 16)) == pytest.approx((0.0562, 0.3292), abs=5e-5)


@pytest.mark.parametrize(
    "counts", [(10, 0, 0, 0), (0, 0, 0, 10), (0, 10, 0, 0), (0, 0, 10, 0), (5, 1, 1, 5), (1, 0, 0, 0)]
)
def test_the_interval_holds_the_drop_and_stays_within_its_ends(counts: tuple[int, int, int, int]) -> None:
    _, lost, won, _ = counts
    low, high = drop_interval(*table(*counts))
    assert -1 <= low <= (lost - won) / sum(counts) <= high <= 1


def test_more_texts_make_it_narrower() -> None:
    (low, high), (other_low, other_high) = (drop_interval(*table(8 * n, 2 * n, n, n)) for n in (10, 100))
    assert low < other_low < 1 / 12 < other_high < high


def test_texts_of_one_group_count_together() -> None:
    original, artifact = table(80, 20, 0, 0)
    alone = drop_interval(original, artifact, list(range(100)))
    together = drop_interval(original, artifact, [place // 20 for place in range(100)])
    assert alone[0] == pytest.approx(0.12, abs=0.02)
    assert alone[1] == pytest.approx(0.28, abs=0.02)
    assert together[0] == 0
    assert together[1] >= 0.6
    assert drop_interval(original, artifact, ["one"] * 100) == (0.2, 0.2)


def test_resampling_is_seeded() -> None:
    original, artifact = table(30, 5, 2, 3)
    groups = [place % 7 for place in range(40)]
    assert drop_interval(original, artifact, groups) == drop_interval(original, artifact, groups)
