"""The latencies of a run at several batch sizes and lengths, as the page's table shows them."""

from collections.abc import Mapping
from typing import Any

from optimizer.report.runs import Run

HEADINGS = ("texts", "tokens", "ms", "95 % of them", "original, ms", "95 % of them", "speed-up", "95 % interval")


def cells(run: Run) -> list[tuple[str, ...]]:
    """The texts of each cell under HEADINGS; none of a run without a grid."""
    return [_cell(cell) for cell in run.row.latency_grid or () if isinstance(cell, dict)]


def _cell(cell: Mapping[str, Any]) -> tuple[str, ...]:
    sizes = [_figure(cell, name, "{:.0f}") for name in ("batch_size", "length")]
    times = [_figure(cell, f"{whose}latency_ms_{what}", "{:.1f}") for whose in ("", "original_") for what in _SHARES]
    low, high = (_figure(cell, f"speedup_{end}", "{:.2f}") for end in ("low", "high"))
    return *sizes, *times, _figure(cell, "speedup", "{:.2f}x"), f"{low} to {high}" if low and high else ""


_SHARES = ("p50", "p95")


def _figure(cell: Mapping[str, Any], name: str, pattern: str) -> str:
    """A figure; empty where a row that somebody else wrote has none."""
    value = cell.get(name)
    return pattern.format(value) if isinstance(value, int | float) else ""
