"""Rows as runs leave them, without the runs."""

from pathlib import Path
from typing import Any

from optimizer.rows.row import Row
from optimizer.rows.store import run_directory, write_row
from optimizer.yaml import dump

MEASURED: dict[str, Any] = {
    "status": "ok",
    "recipe": "balanced",
    "model": "demo",
    "stages": "prune cast",
    "format": "packed",
    "original_bytes": 3_000_000,
    "artifact_bytes": 600_000,
    "size_ratio": 0.2,
    "agreement": 0.98,
    "agreement_low": 0.97,
    "agreement_high": 0.99,
    "data": "demo",
    "examples": 2000,
    "latency_ms_p50": 10.0,
    "original_latency_ms_p50": 20.0,
    "speedup": 2.0,
    "device": "cpu",
    "threads": 2,
    "torch_version": "2.13.0",
    "transformers_version": "5.23.0",
    "created_at": "2026-01-01T00:00:00.000+00:00",
}


def measured(run_id: str, **figures: Any) -> Row:
    """A good row, of a run that made half the latency and a fifth of the bytes unless told otherwise."""
    return Row(**MEASURED | {"run_id": run_id} | figures)


def sized(run_id: str, ratio: float, agreement: float, **figures: Any) -> Row:
    """A good row of a size and an agreement, with an interval around it."""
    ends = {"agreement_low": agreement - 0.01, "agreement_high": min(agreement + 0.01, 1.0)}
    place = {"size_ratio": ratio, "artifact_bytes": round(ratio * 3_000_000), "agreement": agreement}
    return measured(run_id, **place | ends | figures)


def failed(run_id: str, error: str = "weight 'a': its largest value is too large") -> Row:
    """A row of a run that failed before anything was measured."""
    kept = {key: MEASURED[key] for key in ("recipe", "model", "device", "threads", "created_at")}
    return Row(**kept, run_id=run_id, status="failed", error=error)


def store(out: Path, row: Row, **recipe: Any) -> Row:
    """Keep a row in `out` as a run does, with its recipe if there is one."""
    write_row(out, row)
    if recipe:
        (run_directory(out, row.run_id) / "recipe.yaml").write_text(dump(recipe))
    return row
