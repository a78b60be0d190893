"""The row files of runs, and the CSV file assembled from them.

The row files are the truth, each replaced at once. results.csv follows: as often as that costs little while a command
runs, and completely when it ends. What a killed command leaves out of it, the next one puts in.
"""

import csv
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from optimizer.errors import ArtifactError
from optimizer.files import replacing
from optimizer.rows.row import COLUMNS, Row

ROW_FILE = "row.json"
CSV_FILE = "results.csv"
LOG_FILE = "run.log"

_SHARE = 0.02  # of a command's time that may go into a CSV which is not complete yet
_SECONDS_BETWEEN = 1.0
_FOLDERS = 4  # whose rows this process remembers

_Stamp = tuple[int, int, int]


def write_row(out: Path, row: Row) -> None:
    """Store one run's row, which replaces an earlier one atomically; ArtifactError when it cannot be written."""
    directory = run_directory(out, row.run_id)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _replace(directory / ROW_FILE, json.dumps(row.values(), indent=2, allow_nan=True) + "\n")
    except OSError as error:
        raise ArtifactError(f"{directory}: cannot be written ({error.strerror or error})") from error


def read_row(out: Path, run_id: str) -> Row | None:
    """The stored row of a run, None if there is none that can be read."""
    return _read(run_directory(out, run_id) / ROW_FILE)


def run_directory(out: Path, run_id: str) -> Path:
    """Where a run keeps its row, its recipe, its log and its artifact."""
    return out / "runs" / run_id


def assemble(out: Path) -> list[Row]:
    """Write results.csv from the row files, oldest first, and return the rows; ArtifactError when it cannot be written.

    Any number of processes may do so at once: each looks again after it has replaced the file, until nothing is new.
    """
    try:
        return _table(out.resolve()).assemble()
    except OSError as error:
        raise ArtifactError(f"{out / CSV_FILE}: cannot be written ({error.strerror or error})") from error


def follow(out: Path) -> None:
    """Assemble results.csv if that is due, which never takes more than a small share of a command's time."""
    if _table(out.resolve()).is_due:
        with suppress(ArtifactError):  # the end of the command will say so
            assemble(out)


@contextmanager
def assembled(out: Path) -> Iterator[None]:
    """Leave results.csv complete, however the block ends; where no run has begun, leave nothing."""
    try:
        yield
    except BaseException:
        if (out / "runs").is_dir():
            with suppress(ArtifactError):
                assemble(out)
        raise
    if (out / "runs").is_dir():
        assemble(out)


class _Known(NamedTuple):
    """What has been read of a row file: its stamp then, the row if it holds one, and the row's line in the CSV."""

    stamp: _Stamp
    row: Row | None
    line: str


class _Table:
    """The CSV of one folder as this process knows it: a row file is read again only once it has been replaced."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._known: dict[str, _Known] = {}
        self._due = 0.0
        self._lock = threading.Lock()

    @property
    def is_due(self) -> bool:
        return time.monotonic() >= self._due

    def assemble(self) -> list[Row]:
        with self._lock:
            started = time.monotonic()
            try:
                return self._assemble()
            finally:
                ended = time.monotonic()
                self._due = ended + max(_SECONDS_BETWEEN, (ended - started) / _SHARE)

    def _assemble(self) -> list[Row]:
        stamps = _stamps(self._out)
        while True:
            self._known = {run_id: self._current(run_id, stamp) for run_id, stamp in stamps.items()}
            found = [(known.row, known.line) for known in self._known.values() if known.row]
            found.sort(key=lambda pair: (pair[0].created_at or "", pair[0].run_id))
            _replace(self._out / CSV_FILE, _line(COLUMNS) + "".join(line for _, line in found))
            before, stamps = stamps, _stamps(self._out)
            if stamps == before:
                return [row for row, _ in found]

    def _current(self, run_id: str, stamp: _Stamp) -> _Known:
        known = self._known.get(run_id)
        if known and known.row and known.stamp == stamp:
            return known
        row = read_row(self._out, run_id)
        return _Known(stamp, row, _line(_cell(getattr(row, column)) for column in COLUMNS) if row else "")


_table = lru_cache(maxsize=_FOLDERS)(_Table)


def _stamps(out: Path) -> dict[str, _Stamp]:
    """For each run with a row file what differs once that has been replaced."""
    found = {}
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(out / "runs") as runs:
        for run in runs:
            with suppress(FileNotFoundError, NotADirectoryError):
                stat = os.stat(f"{run.path}/{ROW_FILE}")  # noqa: PTH116 -- twice as fast as a Path's
                found[run.name] = stat.st_mtime_ns, stat.st_size, stat.st_ino
    return found


def _read(path: Path) -> Row | None:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    row = Row.of(values) if isinstance(values, dict) else None
    return row if row and row.created_at else None


def _cell(value: Any) -> Any:
    """A value as the CSV holds it: what is a table in itself as JSON."""
    return json.dumps(value) if isinstance(value, list) else value


def _line(cells: Any) -> str:
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _replace(path: Path, text: str) -> None:
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")
