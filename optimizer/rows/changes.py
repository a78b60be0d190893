"""The answers that an artifact gives otherwise than its original: a run's changed.jsonl, the surest first."""

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from optimizer.errors import ArtifactError
from optimizer.files import replacing

FILE = "changed.jsonl"


@dataclass(frozen=True, kw_only=True)
class Change:
    """One text that is answered otherwise; `position` is its number, from 0, among the texts that `data` names.

    A margin is how sure a model is, 0 to 1: the probability of its answer less that of the next one, of a set twice the
    distance from one half of the label that is nearest to it. Where each token is answered, `tokens` are as many as
    differ, and the rest is about the first of them, `token`. `text` is kept where `data.keep_texts` says so: of a pair
    both.
    """

    position: int
    original: str
    artifact: str
    original_margin: float
    artifact_margin: float
    token: int | None = None
    tokens: int | None = None
    text: str | list[str] | None = None

    @property
    def words(self) -> str:
        """The text, a pair's two with a bar between; empty where it is not kept."""
        return " | ".join(self.text) if isinstance(self.text, list) else self.text or ""


class Changes(NamedTuple):
    """The first of a run's changes, and how many there are in all."""

    shown: list[Change]
    total: int


def write_changes(directory: Path, changes: Iterable[Change]) -> None:
    """Keep a run's changes in its folder, the surest of the original first; ArtifactError if that cannot be written."""
    ordered = sorted(changes, key=lambda change: (-change.original_margin, change.position))
    try:
        with replacing(directory / FILE) as partial, partial.open("w", encoding="utf-8") as file:
            for change in ordered:
                values = {name: value for name, value in asdict(change).items() if value is not None}
                file.write(f"{json.dumps(values)}\n")
    except OSError as error:
        raise ArtifactError(f"{directory / FILE}: cannot be written ({error.strerror or error})") from error


def read_changes(directory: Path, most: int | None = None) -> Changes | None:
    """The changes in a run's folder, at most so many of them; None where none were kept, or they are damaged."""
    try:
        with (directory / FILE).open(encoding="utf-8") as file:
            lines = [line for line in file if line.strip()]
        return Changes([Change(**json.loads(line)) for line in lines[:most]], len(lines))
    except (OSError, ValueError, TypeError):
        return None


def has_texts(directory: Path) -> bool:
    """Whether the texts of all changes in a run's folder are kept."""
    found = read_changes(directory)
    return found is not None and all(change.text is not None for change in found.shown)


def forget(directory: Path) -> None:
    """Remove what an earlier measurement has left."""
    with suppress(OSError):
        (directory / FILE).unlink(missing_ok=True)
