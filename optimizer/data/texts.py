"""The texts that original and artifact are both asked, with their labels where there are any."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from optimizer import demo
from optimizer.data.files import TXT_COLUMN, Row, read_rows
from optimizer.errors import DataError
from optimizer.settings import Settings, nearest

Text = str | tuple[str, str]
Label = str | int

_MISSING = (None, "")
_AUTO = "auto"
_LABEL = "label"
OURS = (_AUTO, "demo", "builtin")
"""The values of `path` that name no file."""
_SHIPPED = {"demo": demo.TEXTS, "builtin": demo.SENTENCES}


class DataSettings(Settings):
    """Which texts: `path` is a file (jsonl, csv, parquet, txt), `demo`, `builtin`, or `auto`.

    `text` names the column of texts, or two columns for pairs; `label` the column of labels, which must be there if
    it is named otherwise than by default, unless that is empty.
    `limit` keeps only the first texts. `calibration` is another file of texts, in the same columns and without labels,
    for what looks at the model's behaviour; without it, that takes a part of these, on which nothing is then measured.
    """

    path: str = "auto"
    text: str | list[str] = "text"
    label: str = _LABEL
    limit: int | None = Field(default=None, ge=1)
    calibration: str | None = None

    @field_validator("text", mode="before")
    @classmethod
    def _one_or_two(cls, text: Any) -> Any:
        pair = isinstance(text, list) and len(text) == 2 and all(isinstance(column, str) for column in text)
        if not (pair or isinstance(text, str)):
            raise ValueError("write one column, or two columns for pairs of texts")
        return text


@dataclass(frozen=True)
class Texts:
    """Texts or pairs of texts; `labels` has one for each, or is None.

    `name` is the row's `data`: demo, builtin, or the file's name. `fingerprint` is the sha256 of texts and labels
    in hexadecimal, whatever file they come from. `source` gives the same texts again, from any working directory.
    """

    texts: tuple[Text, ...]
    labels: tuple[Label, ...] | None
    name: str
    fingerprint: str
    source: DataSettings


def read(settings: DataSettings, *, is_demo: bool, key: str = "data.path") -> Texts:
    """The texts that a recipe's `data` names; `auto` is the demo's test set for the demo, builtin sentences otherwise.

    Raises DataError, with file and line where there is one; `key` is the setting that names the file.
    """
    name, path = _source(settings.path, is_demo)
    rows = list(islice(read_rows(path, key), settings.limit))
    if not rows:
        raise DataError(f"{path}: holds no texts")
    texts = tuple(_text(row, settings.text, path) for row in rows)
    labels = _labels(rows, settings.label, path)
    others = None if settings.calibration is None else Path(settings.calibration).expanduser().absolute()
    source = settings.model_copy(
        update={
            "path": name if name in _SHIPPED else str(path.absolute()),
            "calibration": None if others is None else str(others),
        }
    )
    return Texts(texts, labels, name, fingerprint(texts, labels), source)


def fingerprint(texts: Sequence[Text], labels: Sequence[Label] | None) -> str:
    """The sha256 of texts and labels in hexadecimal."""
    return hashlib.sha256(json.dumps([texts, labels]).encode()).hexdigest()


def _source(path: str, is_demo: bool) -> tuple[str, Path]:
    if path == _AUTO:
        path = "demo" if is_demo else "builtin"
    if path in _SHIPPED:
        return path, _SHIPPED[path]
    file = Path(path).expanduser()
    return file.name, file


def _text(row: Row, column: str | list[str], path: Path) -> Text:
    if path.suffix.lower() == ".txt":
        if isinstance(column, list):
            raise DataError(f"{path}: a txt file has no columns for pairs of texts; give a jsonl, csv or parquet file")
        column = TXT_COLUMN
    if isinstance(column, list):
        first, second = column
        return _field(row, first), _field(row, second)
    return _field(row, column)


def _field(row: Row, column: str) -> str:
    if column not in row.values:
        columns = ", ".join(map(str, row.values)) or "none"
        raise DataError(
            f"{row.where}: has no column '{column}' (columns: {columns}); write data.text=COLUMN; "
            f"{nearest(column, map(str, row.values))}"
        )
    text = row.values[column]
    if not isinstance(text, str):
        raise DataError(f"{row.where}: '{column}' holds {_brief(text)} where a text is expected")
    return text


def _labels(rows: list[Row], column: str, path: Path) -> tuple[Label, ...] | None:
    """The labels, None without any: the column of the default name may be absent, one that was named may not."""
    if column not in ("", _LABEL) and not any(column in row.values for row in rows):
        columns = dict.fromkeys(str(name) for row in rows for name in row.values)
        raise DataError(
            f"{path}: has no column '{column}' (columns: {', '.join(columns)}); write data.label=COLUMN, or "
            f"data.label='' to go without; {nearest(column, columns)}"
        )
    labels = [row.values.get(column) for row in rows]
    if all(label in _MISSING for label in labels):
        return None
    checked: list[Label] = []
    for row, label in zip(rows, labels, strict=True):
        if label in _MISSING:
            raise DataError(
                f"{row.where}: has no '{column}' while other rows have one; fill it in, or write data.label=''"
            )
        if isinstance(label, bool) or not isinstance(label, str | int):
            raise DataError(
                f"{row.where}: '{column}' holds {_brief(label)} where a word or a whole number is expected; "
                "write data.label=COLUMN, or data.label='' to go without"
            )
        checked.append(label)
    return tuple(checked)


def _brief(value: object) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:39]}…"


def check_labels(texts: Texts, config: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The labels as ids of the classes in a config.json's values, None unless the model gives each text one label.

    A label is matched by its name first, then as a number within range. Raises DataError for unknown ones.
    """
    from optimizer.model.task import task_of

    ids, classes = _class_ids(config)
    several = config.get("problem_type") in ("multi_label_classification", "regression")
    if texts.labels is None or several or classes < 2 or task_of(config) != "sequence-classification":
        return None
    found = {label: _class_id(label, ids, classes) for label in dict.fromkeys(texts.labels)}
    unknown = [str(label) for label, index in found.items() if index is None]
    if unknown:
        raise DataError(
            f"{texts.name}: the model does not know {_first(unknown)}; "
            f"it knows {_first(list(ids))}; write data.label=COLUMN, or data.label='' to go without"
        )
    return tuple(index for label in texts.labels if (index := found[label]) is not None)


def _class_ids(config: Mapping[str, Any]) -> tuple[dict[str, int], int]:
    """Class ids by name, and how many classes there are as transformers counts them: two unless config.json says."""
    named = config.get("id2label") or {}
    classes = len(named) or int(config.get("num_labels", 2))
    ids = {str(name): int(index) for index, name in named.items()}
    ids |= {str(name): int(index) for name, index in (config.get("label2id") or {}).items()}
    return ids or {f"LABEL_{index}": index for index in range(classes)}, classes


def _class_id(label: Label, ids: Mapping[str, int], classes: int) -> int | None:
    name = str(label)
    if name in ids:
        return ids[name]
    if name.isdecimal() and int(name) < classes:
        return int(name)
    return None


def _first(names: list[str]) -> str:
    """The first three names, and how many more there are."""
    shown = ", ".join(f"'{name}'" for name in names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
