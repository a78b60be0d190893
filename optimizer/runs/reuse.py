"""Artifacts that other runs have made already, found by a digest of all that decides their bytes.

`out`/artifacts/<digest>/<run id> are empty files, which nobody needs to lock: what one says is checked against the
artifact itself, and an artifact without one is merely made again.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from optimizer.data.calibration import Calibration
from optimizer.errors import ArtifactError
from optimizer.manifest import read_manifest, versions
from optimizer.model.checkpoint import Checkpoint
from optimizer.model.locate import Original
from optimizer.recipe import Recipe
from optimizer.runs.calibrating import calibration_record
from optimizer.yaml import dump

_INDEX = "artifacts"


def same_artifact(
    checkpoint: Checkpoint, recipe: Recipe, original: Original, calibration: Calibration | None, directory: Path
) -> Path | None:
    """An artifact, in a run's `directory` or in a run's folder beside it, with the bytes that this recipe would write.

    What decides them is in every artifact: the recipe, the original's name, commit and fingerprint, the versions, the
    calibration.
    """
    wanted = _decisive(checkpoint, recipe, original, calibration)
    for name in (directory.name, *_noted(_entries(wanted, directory))):
        artifact = directory.parent / name / "artifact"
        with suppress(ArtifactError, OSError, ValueError):
            found = read_manifest(artifact)
            made_by = (artifact / "recipe.yaml").read_text(encoding="utf-8")
            made_from = [found.original, found.original_fingerprint, found.versions, found.calibration]
            if [*made_from, made_by, *_commit(found.original_commit)] == wanted:
                return artifact
    return None


def note(
    checkpoint: Checkpoint, recipe: Recipe, original: Original, calibration: Calibration | None, directory: Path
) -> None:
    """Let other runs find the artifact that has been made in a run's `directory`."""
    entries = _entries(_decisive(checkpoint, recipe, original, calibration), directory)
    with suppress(OSError):
        entries.mkdir(parents=True, exist_ok=True)
        (entries / directory.name).touch()


def _noted(entries: Path) -> Iterator[str]:
    with suppress(OSError):
        yield from sorted(entry.name for entry in entries.iterdir())


def _decisive(checkpoint: Checkpoint, recipe: Recipe, original: Original, calibration: Calibration | None) -> list[Any]:
    calibrated = calibration_record(calibration, recipe.environment) if calibration else None
    made_from = [original.name, checkpoint.fingerprint, versions(recipe.packages), calibrated]
    return [*made_from, dump(recipe.made_by()), *_commit(original.commit)]


def _commit(commit: str | None) -> list[str]:
    """Nothing where there is none, so that what a directory's artifacts are found by stays what it was."""
    return [] if commit is None else [commit]


def _entries(decisive: list[Any], directory: Path) -> Path:
    return directory.parents[1] / _INDEX / hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:32]
