"""The texts that original and artifact are both asked, with their labels where there are any."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from pydantic import Field, field_validator, model_validator

from optimizer import demo, hub
from optimizer.data.dataset import open_dataset
from optimizer.data.files import Row, is_file_name, is_pattern, read_rows, why_no_file
from optimizer.errors import DataError
from optimizer.settings import Settings, nearest

Text = str | tuple[str, str]
Label = str | int | float | tuple[str | int, ...]
"""One label, a score, or several labels: of a text with a set of them, or of each word."""

Pooling = Literal["mean", "cls"]

_MISSING = (None, "")
_AUTO = "auto"
_LABEL = "label"
_SHIPPED = {"demo": demo.TEXTS, "builtin": demo.SENTENCES}
OURS = (_AUTO, *_SHIPPED)
"""The values of `path` that name no file."""


class DataSettings(Settings):
    """Which texts: `path` is a file, a pattern of files, a dataset on the hub, `demo`, `builtin`, or `auto`.

    Files are jsonl, json (a list of objects), csv, tsv and txt, each also gzipped, and parquet. A dataset is
    `organization/name` or `organization/name@revision`; of it `split` is read, in the configuration `config`.
    `text` names the column of texts, or two columns for pairs; `label` the column of labels, which must be there if
    it is named otherwise than by default, unless that is empty.
    `limit` keeps only the first texts. `calibration` is another such path, of texts in the same columns and without
    labels, for what looks at the model's behaviour, `calibration_split` the split of it if it is a dataset; without it,
    that takes a part of these, on which nothing is then measured. `held_out` of the different texts that are measured
    on, chosen by their sha256, are kept apart: `part` says whether to measure on these, or on the others, which were
    `searched`. With `keep_texts` a run's changed.jsonl holds texts, and not only their numbers.
    `tokens` names a column of lists of words in place of `text`, for models that label each word; `group` one that says
    which texts belong together, as the answers to one question do. `pooling` is how an encoder that does not say it
    makes one vector of a text's tokens: their mean, which is the default, or the first one.
    """

    path: str = "auto"
    text: str | list[str] = "text"
    label: str = _LABEL
    limit: int | None = Field(default=None, ge=1)
    calibration: str | None = None
    split: str | None = None
    config: str | None = None
    calibration_split: str | None = None
    part: Literal["searched", "held_out"] | None = None
    held_out: int | None = Field(default=None, ge=1)
    keep_texts: bool = False
    tokens: str | None = None
    group: str | None = None
    pooling: Pooling | None = None

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.part is None) != (self.held_out is None):
            raise ValueError("part and held_out go together; write part: held_out, held_out: 500")
        return self

    @field_validator("text", mode="before")
    @classmethod
    def _one_or_two(cls, text: Any) -> Any:
        pair = isinstance(text, list) and len(text) == 2 and all(isinstance(column, str) for column in text)
        if not (pair or isinstance(text, str)):
            raise ValueError("write one column, or two columns for pairs of texts")
        return text

    @property
    def calibrating(self) -> "DataSettings":
        """The same of the calibration texts; a `calibration` is set."""
        assert self.calibration is not None
        config = self.config if _dataset(self.calibration) else None
        changed = {"path": self.calibration, "config": config, "split": self.calibration_split}
        none: dict[str, Any] = {"calibration": None, "calibration_split": None, "limit": None, "group": None}
        return self.model_copy(update={**changed, **none, "label": ""})

    def values(self) -> dict[str, Any]:
        """The keys of a recipe file; those that came later only where they are set, so that no recipe changes."""
        later = ("split", "config", "calibration_split", "part", "held_out", "keep_texts", "tokens", "group", "pooling")
        return self.model_dump(exclude={name for name in later if getattr(self, name) in (None, False)})


@dataclass(frozen=True)
class Texts:
    """Texts or pairs of texts; `labels` has one for each, or is None.

    `name` is the row's `data`: demo, builtin, the file's name, or a dataset's with its split. `fingerprint` is the
    sha256 of texts and labels in hexadecimal, whatever file they come from. `source` gives the same texts again, from
    any working directory. `classes` are the labels that a dataset numbers, in that order. `tokens` are the words of
    each text where the data gives them, `groups` says which texts belong together, where it does. `numbers` are those
    of the texts where these are a part of what was read: see `number`.
    """

    texts: tuple[Text, ...]
    labels: tuple[Label, ...] | None
    name: str
    fingerprint: str
    source: DataSettings
    classes: tuple[Label, ...] = ()
    tokens: tuple[tuple[str, ...], ...] | None = None
    groups: tuple[str | int, ...] | None = None
    numbers: tuple[int, ...] = ()

    def number(self, index: int) -> int:
        """Which of the texts that `source` names, from 0, is the one at `index` here."""
        return self.numbers[index] if self.numbers else index

    def at(self, places: Sequence[int]) -> "Texts":
        """Those at these places, in this order, with their numbers."""

        def chosen(values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
            return None if values is None else tuple(values[place] for place in places)

        texts, labels = tuple(self.texts[place] for place in places), chosen(self.labels)
        tokens, groups = chosen(self.tokens), chosen(self.groups)
        numbers, digest = tuple(map(self.number, places)), fingerprint(texts, labels, tokens, groups)
        return replace(
            self, texts=texts, labels=labels, tokens=tokens, groups=groups, numbers=numbers, fingerprint=digest
        )


def read(settings: DataSettings, *, is_demo: bool, key: str = "data.path") -> Texts:
    """The texts that a recipe's `data` names; `auto` is the demo's test set for the demo, builtin sentences otherwise.

    Raises DataError, with file and line where there is one; `key` is the setting that names the file.
    """
    found = _find(settings, is_demo, key)
    rows = list(islice(found.rows, settings.limit))
    if not rows:
        raise DataError(f"{found.place}: holds no texts")
    tokens = None if settings.tokens is None else tuple(_words(row, settings.tokens) for row in rows)
    texts = tuple(map(" ".join, tokens)) if tokens else tuple(_text(row, settings.text) for row in rows)
    groups = None if settings.group is None else tuple(_group(row, settings.group) for row in rows)
    labels = _labels(rows, settings.label, found.place)
    calibration = None if settings.calibration is None else _lasting(settings.calibration)
    source = settings.model_copy(update={"path": _lasting(found.path), "calibration": calibration})
    classes = found.classes.get(settings.label, ())
    digest = fingerprint(texts, labels, tokens, groups)
    return Texts(texts, labels, found.name, digest, source, classes, tokens, groups)


def fingerprint(
    texts: Sequence[Text],
    labels: Sequence[Label] | None,
    tokens: Sequence[Sequence[str]] | None = None,
    groups: Sequence[str | int] | None = None,
) -> str:
    """The sha256 of texts and labels in hexadecimal, and of their words and groups where there are any."""
    more = [] if tokens is None and groups is None else [tokens, groups]
    return hashlib.sha256(json.dumps([texts, labels, *more]).encode()).hexdigest()


class _Found(NamedTuple):
    """Texts before they are read: as `path` says, known as `name`, at `place`."""

    path: str
    name: str
    place: str
    rows: Iterable[Row]
    classes: Mapping[str, tuple[str, ...]]


def _find(settings: DataSettings, is_demo: bool, key: str) -> _Found:
    path = ("demo" if is_demo else "builtin") if settings.path == _AUTO else settings.path
    _check_splits(settings)
    if path in _SHIPPED:
        return _Found(path, path, path, read_rows(_SHIPPED[path]), {})
    file, dataset = _file(path), _dataset(path)
    if dataset is None:
        return _Found(path, file.name, str(file), read_rows(file, key), {})
    split_key = "data.split" if key == "data.path" else "data.calibration_split"
    found = open_dataset(dataset, settings.config, settings.split, key, split_key, why_no_file(file))
    return _Found(path, found.where, found.where, found.rows(), found.classes)


def _file(path: str) -> Path:
    file = Path(path)
    with suppress(RuntimeError):  # ~name of nobody's home
        return file.expanduser()
    return file


def _dataset(path: str | None) -> hub.Named | None:
    """What on the hub a path may name: what is not there, no pattern, and has no suffix of a file of texts."""
    if path is None or path in OURS:
        return None
    file = _file(path)
    return None if file.exists() or is_pattern(file) or is_file_name(file) else hub.named(path)


def _check_splits(settings: DataSettings) -> None:
    """Refuse what is said of a dataset where there is none."""
    measured, calibration = _dataset(settings.path), _dataset(settings.calibration)
    fitting = {
        "split": measured,
        "config": measured or calibration,
        "calibration_split": calibration,
    }
    for name, dataset in fitting.items():
        if getattr(settings, name) is not None and dataset is None:
            raise DataError(f"data.{name}: is for a dataset of the hub, and these are other texts; leave it out")


def _lasting(path: str) -> str:
    """The same path from any working directory."""
    if path in _SHIPPED or _dataset(path):
        return path
    return str(_file(path).absolute())


def _text(row: Row, column: str | list[str]) -> Text:
    if row.line is not None:
        if isinstance(column, list):
            raise DataError(
                f"{row.where}: a txt file has no columns for pairs of texts; give a jsonl, csv or parquet file"
            )
        return row.line
    if isinstance(column, list):
        first, second = column
        return _field(row, first), _field(row, second)
    return _field(row, column)


def _value(row: Row, column: str, setting: str) -> Any:
    if column not in row.values:
        columns = ", ".join(map(str, row.values)) or "none"
        raise DataError(
            f"{row.where}: has no column '{column}' (columns: {columns}); write data.{setting}=COLUMN; "
            f"{nearest(column, map(str, row.values))}"
        )
    return row.values[column]


def _words(row: Row, column: str) -> tuple[str, ...]:
    words = _value(row, column, "tokens")
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        raise DataError(f"{row.where}: '{column}' holds {_brief(words)} where a list of words is expected")
    return tuple(words)


def _group(row: Row, column: str) -> str | int:
    group = _value(row, column, "group")
    if isinstance(group, bool) or not isinstance(group, str | int):
        raise DataError(f"{row.where}: '{column}' holds {_brief(group)} where a word or a whole number is expected")
    return group


def _field(row: Row, column: str) -> str:
    text = _value(row, column, "text")
    if not isinstance(text, str):
        raise DataError(f"{row.where}: '{column}' holds {_brief(text)} where a text is expected")
    return text


def _labels(rows: list[Row], column: str, path: str) -> tuple[Label, ...] | None:
    """The labels, None without any: the column of the default name may be absent, one that was named may not."""
    if column not in ("", _LABEL) and not any(column in row.values for row in rows):
        columns = dict.fromkeys(str(name) for row in rows for name in row.values) or {"text": None}
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
        if isinstance(label, Mapping) and isinstance(label.get("text"), list):
            label = label["text"]  # the answers of SQuAD, with their places
        several = tuple(label) if isinstance(label, list) else (label,)
        numbers = isinstance(label, list) and any(isinstance(each, float) for each in label)
        if numbers or not all(map(_is_label, several)):
            raise DataError(
                f"{row.where}: '{column}' holds {_brief(label)} where a word, a number or a list of labels is "
                "expected; write data.label=COLUMN, or data.label='' to go without"
            )
        checked.append(several if isinstance(label, list) else label)
    return tuple(checked)


def _is_label(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool) and not _is_nan(value)


def _brief(value: object) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:39]}…"


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
