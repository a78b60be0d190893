"""Rows as the report needs them: with their recipe, what sets them apart, and whether another row beats them."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from optimizer.report.changed import MOST
from optimizer.report.differences import differences, settings_of
from optimizer.report.figures import printable
from optimizer.rows.changes import Changes, read_changes
from optimizer.rows.front import front, quality
from optimizer.rows.row import Row, is_slower, rank
from optimizer.rows.store import run_directory

_LITTLE = 0.95  # agreement, or cosine similarity
_LONGEST_LABEL = 30  # characters that fit beside a point


@dataclass(frozen=True)
class Run:
    """A row, the YAML text of its resolved recipe where there is one, and how it stands beside the other rows.

    `number` is its place among them, from 0.
    `differs` holds the settings in which the runs of the same recipe on the same model differ, by dotted name.
    `changes` are the first of the answers that are not its original's, None where none were kept.
    `on_front`: no other row of the same original and texts is both smaller and closer to it.
    """

    row: Row
    number: int
    recipe: str | None
    differs: Mapping[str, str]
    on_front: bool
    changes: Changes | None = None

    @property
    def name(self) -> str:
        """The run's id, printable."""
        return printable(self.row.run_id)

    @property
    def model(self) -> str:
        """The original's name, printable."""
        return printable(self.row.model)

    @property
    def error(self) -> str:
        """What went wrong, printable; empty for a good run."""
        return printable(self.row.error)

    @property
    def label(self) -> str:
        """A few words for beside a point: the recipe and what sets the run apart, or its id where that is too long."""
        apart = [setting.removeprefix("stages.") for setting in self.settings]
        label = " ".join([printable(self.row.recipe or self.name), *apart])
        return label if len(label) <= _LONGEST_LABEL else shortened(self.name)

    @property
    def settings(self) -> list[str]:
        """What sets the run apart, a `setting=value` each."""
        return [f"{name}={value}" for name, value in self.differs.items()]

    @property
    def closeness(self) -> float | None:
        """How close it is to its original, by the figure that counts for its model; None if not measured."""
        return quality(self.row)

    @property
    def is_slower(self) -> bool:
        """Whether it was measured to be slower than its original, beyond the noise."""
        return is_slower(self.row)

    @property
    def agrees_little(self) -> bool:
        """Whether it answers more than one example in twenty otherwise than its original."""
        return self.closeness is not None and self.closeness < _LITTLE

    def figure(self, column: str) -> float | None:
        """A figure of the row; None if it was not measured or is no finite number."""
        value = getattr(self.row, column)
        return float(value) if value is not None and math.isfinite(value) else None


def runs(rows: Iterable[Row], out: Path) -> list[Run]:
    """Good rows before rejected before failed, among them the smaller first; recipes are read from `out`."""
    ordered = sorted(rows, key=rank)
    best = {id(row) for row in front(ordered)}
    paths = [run_directory(out, row.run_id) / "recipe.yaml" for row in ordered]
    texts = [_text(path) for path in paths]
    known = [None if text is None else settings_of(path) for path, text in zip(paths, texts, strict=True)]
    apart = differences([(row.recipe, row.model) for row in ordered], known)
    return [
        Run(row, number, text, differs, id(row) in best, read_changes(run_directory(out, row.run_id), MOST))
        for number, (row, text, differs) in enumerate(zip(ordered, texts, apart, strict=True))
    ]


def shortened(text: str) -> str:
    """The end of a text, which is what tells paths and ids apart."""
    return text if len(text) <= _LONGEST_LABEL else "…" + text[1 - _LONGEST_LABEL :]


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
