"""The figures of a row as texts, the same on the screen, on the page and in Markdown."""

import math
from typing import Any

from optimizer.rows.front import closeness_of
from optimizer.rows.row import FIGURES, Row, is_as_fast

MEGABYTE = 1e6


def figure(row: Row, column: str) -> str:
    """A figure; empty if it was not measured."""
    value = getattr(row, column)
    if value is None:
        return ""
    if column == "artifact_bytes":
        return megabytes(value)
    text = FIGURES[column].pattern.format(value)
    return f"{text}, as fast" if column == "speedup" and is_as_fast(row) else text


def closeness(row: Row) -> str:
    """What is called the row's closeness to its original, in words."""
    return closeness_of(row).replace("_", " ")


def ends(row: Row) -> tuple[float | None, float | None]:
    """The 95 % interval of a row's closeness; None where it has none."""
    name = closeness_of(row)
    return getattr(row, f"{name}_low", None), getattr(row, f"{name}_high", None)


def interval(row: Row) -> str:
    """The 95 % interval of a row's closeness; empty if it was not measured."""
    low, high = ends(row)
    if low is None or high is None or not math.isfinite(low + high):
        return ""
    return f"{low:.4f} to {high:.4f}"


def megabytes(size: float) -> str:
    """Bytes as megabytes, without the unit."""
    return f"{size / MEGABYTE:.2f}"


def printable(value: Any) -> str:
    """A value as text on one line that any file and any font's machinery takes; empty for None."""
    text = "" if value is None else str(value)
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())
