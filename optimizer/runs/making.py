"""Make a run's artifact, or take over one that another run made in the same way; in a process of its own."""

import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from optimizer.artifact.building import building
from optimizer.artifact.write import write
from optimizer.calibration.store import stored
from optimizer.data.calibration import Calibration
from optimizer.errors import ArtifactError
from optimizer.evaluation import size
from optimizer.evaluation.models import quiet
from optimizer.formats.format import Calibrated
from optimizer.manifest import verify
from optimizer.model.checkpoint import Checkpoint
from optimizer.model.locate import Original
from optimizer.processes import machine
from optimizer.recipe import Recipe
from optimizer.rows import store
from optimizer.runs.calibrating import calibrated
from optimizer.stages.untouched import Remainder

log = logging.getLogger(__name__)

ORIGINALS = "originals"
"""The folder in `out` of what has been computed of originals."""


def make(
    checkpoint: Checkpoint,
    recipe: Recipe,
    original: Original,
    calibration: Calibration | None,
    directory: Path,
    reuse: Path | None,
) -> dict[str, Any]:
    """Write the artifact into a run's `directory` and return the row's figures of making it and of its size.

    `reuse` is an artifact that holds the same already: it is then taken over, sharing its files' disk space. Raises an
    OptimizerError when a stage does not fit or the disk is full; nothing half-written is left.
    """
    with _run_log(directory), machine.shared():
        quiet()
        torch.set_num_threads(recipe.environment.threads)
        (directory / "recipe.yaml").write_text(recipe.file(), encoding="utf-8")
        artifact, alone = directory / "artifact", recipe.remainder(checkpoint.outline)
        seconds = _seconds(reuse) if reuse else None
        if reuse is None or not _take_over(reuse, artifact):
            start = time.perf_counter()
            _optimize(checkpoint, recipe, original, calibration, alone, artifact, directory.parents[1] / ORIGINALS)
            seconds = time.perf_counter() - start
        return {
            "optimize_seconds": seconds,
            **size.measure(checkpoint, artifact),
            "untouched_ratio": alone.ratio if alone else None,
        }


def _optimize(
    checkpoint: Checkpoint,
    recipe: Recipe,
    original: Original,
    calibration: Calibration | None,
    alone: Remainder | None,
    artifact: Path,
    cache: Path,
) -> None:
    if checkpoint.unknown:
        log.info("carried over as they are, the model does not know them: %s", ", ".join(checkpoint.unknown))
    if checkpoint.missing:
        log.warning("not in the original, random whenever it is loaded: %s", ", ".join(checkpoint.missing))
    if alone:
        log.info("%.1f %% of the weight bytes are changed by no stage but cast", 100 * alone.ratio)
        for each in alone.weights:
            log.info("left alone: %s", each)
    environment = recipe.environment
    texts = calibrated(calibration, checkpoint, environment) if calibration else None
    if texts:
        keep = partial(stored, cache, _statistics_of(checkpoint, texts))
        staged = recipe.staged(checkpoint, original.name, log.info, texts.examples, keep)
    else:
        staged = recipe.staged(checkpoint, original.name, log.info)
    write(staged, artifact, threads=environment.threads, calibration=texts, alone=alone, commit=original.commit)


def _statistics_of(checkpoint: Checkpoint, texts: Calibrated) -> dict[str, Any]:
    """All that decides the statistics of an original."""
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    return {"original": checkpoint.fingerprint, **texts.record, **versions}


def _seconds(artifact: Path) -> float | None:
    """What making it has taken, by the row of its run."""
    row = store.read_row(artifact.parents[2], artifact.parent.name)
    return row.optimize_seconds if row else None


def _take_over(found: Path, artifact: Path) -> bool:
    """Put `found` at `artifact` too, once its files have been checked; False when they are not what they should be."""
    try:
        if found == artifact:
            verify(artifact)
        else:
            with building(artifact) as partial:
                shutil.copytree(found, partial, copy_function=_link, dirs_exist_ok=True)
                verify(partial)
    except ArtifactError as error:  # damaged, or removed in this very moment
        log.warning("%s is not used again: %s", found, error)
        return False
    log.info("the artifact is that of %s", found.parent.name)
    return True


def _link(source: str, target: str) -> None:
    """Let two artifacts share a file: nothing of an artifact is ever changed in place."""
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)


@contextmanager
def _run_log(directory: Path) -> Iterator[None]:
    """Everything that this package logs in this process, in the run's own file."""
    try:
        handler = logging.FileHandler(directory / store.LOG_FILE, mode="w", encoding="utf-8")
    except OSError as error:
        raise ArtifactError(f"{directory}: cannot be written ({error.strerror or error})") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    package = logging.getLogger("optimizer")
    package.addHandler(handler)
    package.setLevel(logging.INFO)
    try:
        yield
    finally:
        package.removeHandler(handler)
        handler.close()
