"""Read the rows of a file of texts: jsonl, csv, parquet or txt."""

import csv
import difflib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from optimizer.errors import DataError, first_line, install
from optimizer.settings import nearest


class Row(NamedTuple):
    """The values of one row by column, and where it stands, for error lines."""

    where: str
    values: Mapping[str, Any]


TXT_COLUMN = "text"


def read_rows(path: Path, key: str = "data.path") -> Iterator[Row]:
    """The rows of a file in their order, by its suffix; a txt file has one column, TXT_COLUMN, and no blank lines.

    Raises DataError, with the line where there is one, for a file that is missing, unknown or damaged; `key` is the
    setting that names it.
    """
    read = _READERS.get(path.suffix.lower())
    if not path.is_file():
        raise DataError(f"{key}: '{path}' {_why_no_file(path)}")
    if read is None:
        raise DataError(f"{key}: '{path.name}' has an unknown suffix; known: {', '.join(_READERS)}")
    try:
        yield from read(path)
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not UTF-8; save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None


def _why_no_file(path: Path) -> str:
    if path.is_dir():
        return f"is a directory; give one file of it ({', '.join(_READERS)})"
    if not path.parent.is_dir():
        return f"does not exist, nor does '{path.parent}'"
    names = sorted(other.name for other in path.parent.iterdir() if other.suffix.lower() in _READERS)
    close = difflib.get_close_matches(path.name, names, n=3)
    if close:
        return f"does not exist; did you mean {' or '.join(repr(name) for name in close)}?"
    tail = nearest(path.name, names[:10]) if names else "there are no texts beside it"
    return f"does not exist; {tail}"


def _jsonl(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                values = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{where}: is not JSON ({error.msg} at column {error.colno})") from None
            if not isinstance(values, dict):
                raise DataError(f'{where}: expected an object such as {{"text": …}}, found {type(values).__name__}')
            yield Row(where, values)


def _csv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for values in reader:
                where = f"{path}:{reader.line_num}"
                if None in values:
                    raise DataError(f"{where}: has more fields than the header; quote fields that hold commas")
                yield Row(where, values)
        except csv.Error as error:
            raise DataError(f"{path}:{reader.reader.line_num}: {error}") from None


def _parquet(path: Path) -> Iterator[Row]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise DataError(f"{path}: parquet needs pyarrow; {install('parquet')}, or give a csv file") from None
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for values in batch.to_pylist():
                    number += 1
                    yield Row(f"{path}: row {number}", values)
    except ArrowException as error:
        raise DataError(f"{path}: is not a parquet file that can be read ({first_line(error)})") from None


def _txt(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield Row(f"{path}:{number}", {TXT_COLUMN: line.strip()})


_READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _jsonl,
    ".csv": _csv,
    ".parquet": _parquet,
    ".txt": _txt,
}
