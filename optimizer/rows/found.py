"""The results that lie at a place: an `out` folder, a results.csv, a row.json, a run's folder or an artifact."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from optimizer.errors import ArtifactError
from optimizer.manifest import CARD, NAME, read_manifest
from optimizer.rows import changes, store
from optimizer.rows.changes import Changes
from optimizer.rows.parsed import rows_of, values
from optimizer.rows.row import COLUMNS, Row
from optimizer.yaml import load

RECIPE = "recipe.yaml"
_MEASURED = re.compile(r"^\| (\w+) \| (.*) \|$", re.MULTILINE)  # of a card


@dataclass(frozen=True)
class Result:
    """A row, and the run's folder, or the artifact's where that has been copied out of it, None where neither is."""

    row: Row
    folder: Path | None

    @property
    def changes(self) -> Changes | None:
        """All its answers that are not its original's; None where they are not kept."""
        return None if self.folder is None else changes.read_changes(self.folder)


def find(place: Path) -> list[Result]:
    """All results at a place, the newest last; ArtifactError where there is none."""
    if not place.exists():
        raise ArtifactError(f"{place}: does not exist; give an out folder, a results.csv, a row.json or an artifact")
    try:
        found = list(_found(place))
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{place}: cannot be read ({error})") from None
    if not found:
        raise ArtifactError(
            f"{place}: holds no row; give an out folder, a results.csv, a row.json or an artifact that was measured"
        )
    return sorted(found, key=lambda result: (result.row.created_at or "", result.row.run_id))


def _found(place: Path) -> Iterator[Result]:
    if place.is_file():
        if place.suffix == ".csv":
            for row in rows_of(place.read_text(encoding="utf-8")):
                yield Result(row, _existing(store.run_directory(place.parent, row.run_id)))
        else:
            yield from _of_file(place)
    elif (place / store.ROW_FILE).is_file():
        yield from _of_file(place / store.ROW_FILE)
    elif (place / NAME).is_file():
        beside = list(_of_file(place.resolve().parent / store.ROW_FILE))
        yield from beside or _of_artifact(place)
    else:
        for file in sorted(place.glob(f"runs/*/{store.ROW_FILE}")):
            yield from _of_file(file)


def _of_file(file: Path) -> Iterator[Result]:
    try:
        row = Row.of(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, AttributeError):
        return
    if row is not None:
        yield Result(row, file.parent)


def _of_artifact(directory: Path) -> Iterator[Result]:
    """What its manifest, its recipe and its card tell of an artifact without its run."""
    manifest = read_manifest(directory)
    try:
        card = (directory / CARD).read_text(encoding="utf-8")
    except OSError:
        return
    _, _, measured = card.partition("\n## Measured\n")
    shown = {name: text for name, text in _MEASURED.findall(measured.partition("\n## ")[0]) if name in COLUMNS}
    if not shown:
        return
    known = {
        "model": manifest.original,
        "format": manifest.format,
        "original_fingerprint": manifest.original_fingerprint,
    }
    row = Row.of(values(shown) | known | {"run_id": directory.name, "status": "ok"})
    if row is not None:
        with suppress(Exception):  # whatever is wrong with it, the row is what counts
            row = row.with_figures({"recipe": load(directory / RECIPE)["name"]})
        yield Result(row, directory)


def _existing(folder: Path) -> Path | None:
    return folder if folder.is_dir() else None
