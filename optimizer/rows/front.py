"""The rows that no other beats: smaller and closer to the original at once."""

import math
from collections import defaultdict
from collections.abc import Iterable

from optimizer.rows.row import Row

CLOSENESS = ("agreement", "neighbour_agreement", "cosine_similarity", "spearman")
"""The figures that say how close an artifact is to its original; of several that a row has the first one counts."""

_COMPARABLE = ("model", "original_bytes", "original_fingerprint", "data", "data_fingerprint", "examples")


def closeness_of(row: Row) -> str:
    """Which of CLOSENESS counts for a row; the first of them where it has none."""
    return next((name for name in CLOSENESS if getattr(row, name) is not None), CLOSENESS[0])


def closeness(row: Row) -> str:
    """What is called the row's closeness to its original, in words."""
    return closeness_of(row).replace("_", " ")


def ends(row: Row) -> tuple[float | None, float | None]:
    """The 95 % interval of a row's closeness; None where it has none."""
    name = closeness_of(row)
    return getattr(row, f"{name}_low", None), getattr(row, f"{name}_high", None)


def quality(row: Row) -> float | None:
    """How close a row is to its original, by the figure of CLOSENESS that counts for it.

    None if it was not measured or is no finite number.
    """
    closeness = getattr(row, closeness_of(row))
    return float(closeness) if closeness is not None and math.isfinite(closeness) else None


def front(rows: Iterable[Row]) -> list[Row]:
    """The Pareto front of the good rows, smallest artifact first, for each original and its texts a front of its own.

    A row is on it when no other of the same original and texts is smaller without being further from the original.
    Rows whose size or closeness was not measured are on none.
    """
    groups: dict[tuple[object, ...], list[Row]] = defaultdict(list)
    for row in rows:
        if row.status == "ok" and row.artifact_bytes is not None and quality(row) is not None:
            groups[closeness_of(row), *(getattr(row, column) for column in _COMPARABLE)].append(row)
    return [row for group in groups.values() for row in _front(group)]


def _front(group: list[Row]) -> list[Row]:
    kept: list[Row] = []
    for row in sorted(group, key=lambda row: (row.artifact_bytes or 0, -(quality(row) or 0.0), row.run_id)):
        if not kept or (quality(row) or 0.0) > (quality(kept[-1]) or 0.0):
            kept.append(row)
    return kept
