"""The row of a run, and the CSV file assembled from all rows."""

import csv
import json
import math
from pathlib import Path
from typing import Any
from uuid import uuid4

from optimizer.errors import ArtifactError

COLUMNS = (
    "run_id",
    "status",
    "error",
    "recipe",
    "model",
    "pruning_amount",
    "threshold",
    "stages",
    "format",
    "parameters",
    "original_bytes",
    "artifact_bytes",
    "size_ratio",
    "bits_per_parameter",
    "sparsity",
    "agreement",
    "agreement_low",
    "agreement_high",
    "max_logit_difference",
    "mean_logit_difference",
    "kl_divergence",
    "accuracy",
    "original_accuracy",
    "perplexity",
    "original_perplexity",
    "cosine_similarity",
    "data",
    "examples",
    "latency_ms_p50",
    "latency_ms_p95",
    "original_latency_ms_p50",
    "speedup",
    "peak_memory_mb",
    "optimize_seconds",
    "evaluate_seconds",
    "artifact",
    "device",
    "threads",
    "torch_version",
    "transformers_version",
    "created_at",
    "original_fingerprint",
    "data_fingerprint",
)

Row = dict[str, Any]


def columns(first: str, end: str) -> tuple[str, ...]:
    """The row's columns from `first` on, those before `end`."""
    return COLUMNS[COLUMNS.index(first) : COLUMNS.index(end)]


ROW_FILE = "row.json"
CSV_FILE = "results.csv"
LOG_FILE = "run.log"
STATUSES = ("ok", "rejected", "failed")
"""Best first."""
_IDENTITY = ("run_id", "created_at")
_TEXTS = ("error", "recipe", "model", "stages", "format", "data", "artifact", "device")
_SETTINGS = ("pruning_amount", "threshold")  # of a recipe with two such stages: both values, in a text
_FIGURES = (*columns("parameters", "data"), *columns("examples", "artifact"), "threads")


def write_row(out: Path, row: Row) -> None:
    """Store one run's row and assemble the CSV anew; both are replaced atomically.

    Raises ArtifactError when they cannot be written.
    """
    assert set(row) == set(COLUMNS), set(row) ^ set(COLUMNS)
    directory = run_directory(out, row["run_id"])
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _replace(directory / ROW_FILE, json.dumps(row, indent=2, allow_nan=True) + "\n")
        assemble(out)
    except OSError as error:
        raise ArtifactError(f"{directory}: cannot be written ({error.strerror or error})") from error


def read_row(out: Path, run_id: str) -> Row | None:
    """The stored row of a run, None if there is none that can be read."""
    return _read(run_directory(out, run_id) / ROW_FILE)


def rank(row: Row) -> tuple[int, float, str]:
    """Sorts good rows before rejected before failed, and among them the smaller first."""
    size = row["size_ratio"]
    known = size is not None and not math.isnan(size)
    return STATUSES.index(row["status"]), size if known else math.inf, str(row["run_id"])


def run_directory(out: Path, run_id: str) -> Path:
    """Where a run keeps its row, its recipe, its log and its artifact."""
    return out / "runs" / run_id


def assemble(out: Path) -> list[Row]:
    """Write results.csv from the row files, oldest first, and return the rows.

    Any number of processes may do so at once: each looks again after it has replaced the file, until nothing is new.
    """
    while True:
        before = _stamps(out)
        rows = [row for row in map(_read, sorted(before)) if row is not None]
        rows.sort(key=lambda row: (row["created_at"], row["run_id"]))
        _replace(out / CSV_FILE, _csv(rows))
        if _stamps(out) == before:
            return rows


def _stamps(out: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in out.glob(f"runs/*/{ROW_FILE}")}


def _read(path: Path) -> Row | None:
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return row if isinstance(row, dict) and set(COLUMNS) <= set(row) and _is_sound(row) else None


def _is_sound(row: Row) -> bool:
    """Whether every value is of the kind that a run writes."""
    return (
        row["status"] in STATUSES
        and all(isinstance(row[column], str) for column in _IDENTITY)
        and all(isinstance(row[column], str | None) for column in _TEXTS)
        and all(isinstance(row[column], int | float | str | None) for column in _SETTINGS)
        and all(isinstance(row[column], int | float | None) for column in _FIGURES)
    )


def _csv(rows: list[Row]) -> str:
    from io import StringIO

    text = StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    return "" if value is None else value


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.{uuid4().hex}.partial")  # process ids repeat from machine to machine
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
