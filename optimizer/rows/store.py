"""The row of a run, and the CSV file assembled from all rows."""

import csv
import json
from pathlib import Path
from typing import Any
from uuid import uuid4

from optimizer.errors import ArtifactError
from optimizer.rows.row import COLUMNS, Row

ROW_FILE = "row.json"
CSV_FILE = "results.csv"
LOG_FILE = "run.log"


def write_row(out: Path, row: Row) -> None:
    """Store one run's row and assemble the CSV anew; both are replaced atomically.

    Raises ArtifactError when they cannot be written.
    """
    directory = run_directory(out, row.run_id)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _replace(directory / ROW_FILE, json.dumps(row.values(), indent=2, allow_nan=True) + "\n")
        assemble(out)
    except OSError as error:
        raise ArtifactError(f"{directory}: cannot be written ({error.strerror or error})") from error


def read_row(out: Path, run_id: str) -> Row | None:
    """The stored row of a run, None if there is none that can be read."""
    return _read(run_directory(out, run_id) / ROW_FILE)


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
        rows.sort(key=lambda row: (row.created_at or "", row.run_id))
        _replace(out / CSV_FILE, _csv(rows))
        if _stamps(out) == before:
            return rows


def _stamps(out: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in out.glob(f"runs/*/{ROW_FILE}")}


def _read(path: Path) -> Row | None:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    row = Row.of(values) if isinstance(values, dict) else None
    return row if row and row.created_at else None


def _csv(rows: list[Row]) -> str:
    from io import StringIO

    text = StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.values().items()} for row in rows)
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
