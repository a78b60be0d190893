"""The figures of a row as texts, the same on the screen, on the page and in Markdown."""

import math
from typing import Any

from optimizer.rows.front import ends
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
