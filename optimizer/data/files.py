"""Read the rows of files of texts: jsonl, json, csv, tsv, txt, each also gzipped, and parquet."""

import csv
import difflib
import glob
import gzip
import json
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from optimizer.errors import DataError, first_line, install
from optimizer.settings import nearest


class Row(NamedTuple):
    """The values of one row by column, and where it stands, for error lines; of a file without columns its `line`."""

    where: str
    values: Mapping[str, Any]
    line: str | None = None


_GZIP = ".gz"
_KNOWN = ".jsonl, .json, .csv, .tsv, .txt, each also with .gz, and .parquet"


def is_pattern(path: Path) -> bool:
    """Whether it stands for many files, as data/*.jsonl does."""
    return glob.escape(str(path)) != str(path) and not path.is_file()


def is_file_name(path: Path) -> bool:
    """Whether its suffix is that of a file that can be read here, be it there or not."""
    return _suffix(path) in _READERS


def read_rows(path: Path, key: str = "data.path") -> Iterator[Row]:
    """The rows of a file in their order, by its suffix, or of all files that a pattern matches, by their names.

    A txt file has no columns, and its blank lines are none. Raises DataError, with the line where there is one, for a
    file that is missing, unknown or damaged; `key` is the setting that names it.
    """
    files = _matching(path, key) if is_pattern(path) else [path]
    for file in files:
        yield from _read(file, key)


def _matching(pattern: Path, key: str) -> list[Path]:
    names = sorted(glob.glob(str(pattern), recursive=True))  # noqa: PTH207 -- that of Path takes no absolute pattern
    found = [file for name in names if (file := Path(name)).is_file()]
    if not found:
        raise DataError(f"{key}: '{pattern}' matches no file; write it in quotes, as data/*.jsonl or data/**/*.jsonl")
    return found


def _read(path: Path, key: str) -> Iterator[Row]:
    read = _READERS.get(_suffix(path))
    if not path.is_file():
        raise DataError(f"{key}: '{path}' {why_no_file(path)}")
    if read is None:
        raise DataError(f"{key}: '{path.name}' has an unknown suffix; known: {_KNOWN}")
    try:
        yield from read(path)
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not UTF-8; save it as UTF-8") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: is no whole gzip file ({first_line(error)}); make it again") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None


def _suffix(path: Path) -> str:
    """What says how a file is read: of a gzipped one what comes before .gz."""
    suffix = path.suffix.lower()
    if suffix != _GZIP:
        return suffix
    inner = Path(path.stem).suffix.lower()
    return "" if inner == ".parquet" else inner


def why_no_file(path: Path) -> str:
    """What there is in place of a file, and which others may be meant."""
    if path.is_dir():
        return f"is a directory; give one file of it, or a pattern such as '{path}/*.jsonl' (known: {_KNOWN})"
    if not path.parent.is_dir():
        return f"does not exist, nor does '{path.parent}'"
    names = sorted(other.name for other in path.parent.iterdir() if _suffix(other) in _READERS)
    close = difflib.get_close_matches(path.name, names, n=3)
    if close:
        return f"does not exist; did you mean {' or '.join(repr(name) for name in close)}?"
    tail = nearest(path.name, names[:10]) if names else "there are no texts beside it"
    return f"does not exist; {tail}"


def _open(path: Path, newline: str | None = None) -> TextIO:
    if path.suffix.lower() == _GZIP:
        return gzip.open(path, "rt", encoding="utf-8-sig", newline=newline)
    return path.open(encoding="utf-8-sig", newline=newline)


def _jsonl(path: Path) -> Iterator[Row]:
    with _open(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                values = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{where}: is not JSON ({error.msg} at column {error.colno})") from None
            yield _object(where, values)


def _json(path: Path) -> Iterator[Row]:
    with _open(path) as file:
        text = file.read()
    try:
        rows = json.loads(text) if text.strip() else []
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}:{error.lineno}: is not JSON ({error.msg} at column {error.colno}); "
            "a file with an object in each line is called .jsonl"
        ) from None
    if not isinstance(rows, list):
        raise DataError(f'{path}: expected a list of objects, [{{"text": …}}, …], found {type(rows).__name__}')
    for number, values in enumerate(rows, start=1):
        yield _object(f"{path}: object {number}", values)


def _object(where: str, values: Any) -> Row:
    if not isinstance(values, dict):
        raise DataError(f'{where}: expected an object such as {{"text": …}}, found {type(values).__name__}')
    return Row(where, values)


def _csv(path: Path, delimiter: str = ",") -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)
    with _open(path, newline="") as file:
        reader = csv.DictReader(file, strict=True, delimiter=delimiter)
        try:
            for values in reader:
                where = f"{path}:{reader.line_num}"
                if None in values:
                    what = "commas" if delimiter == "," else "tabs"
                    raise DataError(f"{where}: has more fields than the header; quote fields that hold {what}")
                yield Row(where, values)
        except csv.Error as error:
            raise DataError(f"{path}:{reader.reader.line_num}: {error}") from None


def _tsv(path: Path) -> Iterator[Row]:
    return _csv(path, "\t")


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
    with _open(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield Row(f"{path}:{number}", {}, line.strip())


_READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _tsv,
    ".txt": _txt,
    ".parquet": _parquet,
}
