"""Rows out of texts: of results.csv, and of the table on an artifact's card."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from io import StringIO
from typing import Any

from optimizer.rows.row import Cells, Count, Number, Row, Setting


def rows_of(text: str) -> Iterator[Row]:
    """The rows of a results.csv, an empty cell being None; what is no row is left out."""
    for line in csv.DictReader(StringIO(text)):
        if (row := Row.of(values(line))) is not None:
            yield row


def values(texts: Mapping[str, str | None]) -> dict[str, Any]:
    """The values of columns from their texts; of what cannot be read as its column's kind the text."""
    return {name: _value(text, _READERS.get(name, str)) for name, text in texts.items() if name}


def _value(text: str | None, read: Callable[[str], Any]) -> Any:
    if text is None or text == "":
        return None
    try:
        return read(text)
    except ValueError:
        return text


def _number(text: str) -> float | int:
    try:
        return int(text)
    except ValueError:
        return float(text)


_KINDS: dict[Any, Callable[[str], Any]] = {Count: int, Number: _number, Setting: _number, Cells: json.loads}
_READERS: dict[str, Callable[[str], Any]] = {
    column.name: _KINDS[column.type] for column in fields(Row) if column.type in _KINDS
}
