"""One run, from a recipe to its row; read this first."""

import hashlib
import json
import logging
import shutil
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock, Timeout

from optimizer import interrupt, making, process, results, staging
from optimizer.artifact.card import write_card
from optimizer.artifact.manifest import read_manifest, verify, versions
from optimizer.artifact.write import partial_name
from optimizer.checkpoint import Checkpoint, open_checkpoint, stamps
from optimizer.errors import ArtifactError, ModelError, RecipeError, as_optimizer_error
from optimizer.evaluation.measure import Job, evaluate
from optimizer.evaluation.predict import decision
from optimizer.evaluation.texts import Texts, check_labels, read
from optimizer.locate import Original, locate
from optimizer.recipe import Gates, Recipe
from optimizer.results import Row

log = logging.getLogger(__name__)

Keep = Literal["all", "front", "none"]
"""Which artifacts stay after a sweep: all, those that no other run beats in size and agreement, none."""

State = Literal["finished", "to measure", "to do", "to do again"]


@dataclass(frozen=True)
class Plan:
    """A recipe checked against its model and its texts: headers are read, tensors are not."""

    recipe: Recipe
    original: Original
    checkpoint: Checkpoint
    texts: Texts
    run_id: str


def plan(recipe: Recipe) -> Plan:
    """Find the original and the texts and check the recipe against them.

    Raises an OptimizerError when anything is missing, damaged or does not fit.
    """
    original = locate(recipe.model)
    checkpoint = open_checkpoint(original.directory)
    staging.routes(recipe.steps, checkpoint.places)
    texts = read(recipe.data, is_demo=original.is_demo)
    _check_gates(recipe.gates, checkpoint, check_labels(texts, checkpoint.config))
    if recipe.environment.device != "cpu" and not torch.cuda.is_available():
        raise RecipeError(f"device: '{recipe.environment.device}' is not there; write device=cpu")
    _ = checkpoint.stamps, checkpoint.fingerprint  # as it is now, wherever the run is made
    return Plan(recipe, original, checkpoint, texts, _run_id(recipe, checkpoint.fingerprint, texts))


def run(plan: Plan, out: Path, *, force: bool = False, keep: Keep = "all") -> Row:
    """Make the artifact, measure it, judge it, and store the row; a finished run is only judged again.

    What computes does so in child processes: one that is killed makes a failed row, as whatever else goes wrong; only a
    row that cannot be stored raises ArtifactError. Another process at the same run is waited for.
    """
    directory = results.run_directory(out, plan.run_id)
    with _only_one(directory):
        if not force and (stored := finished(plan, out, keep)):
            return _store(plan, out, stored)
        row = named_row(plan)
        try:
            row |= _make(plan, directory, force)
            row |= _measure(plan, out, directory)
            _check_unchanged(plan, directory)
        except Exception as error:
            row |= {"status": "failed", "error": str(as_optimizer_error(error))}
            _note(directory, error)
        finally:
            shutil.rmtree(partial_name(directory / "artifact"), ignore_errors=True)
        interrupt.check()
        return _store(plan, out, row)


def finished(plan: Plan, out: Path, keep: Keep) -> Row | None:
    """The stored row of a run that need not be done again, None if there is none.

    A run is finished when it did not fail and its artifact is what its manifest says, or was not to be kept.
    """
    row = results.read_row(out, plan.run_id)
    if row is None or row["status"] == "failed":
        return None
    if row["artifact"] is None:
        return None if keep == "all" else row
    try:
        verify(results.run_directory(out, plan.run_id) / "artifact")
    except ArtifactError as error:
        log.warning("%s", error)
        return None
    return row


def state(plan: Plan, out: Path, keep: Keep) -> State:
    """What is left of a run; to measure: its artifact is there; to do again: it has failed."""
    if finished(plan, out, keep):
        return "finished"
    directory = results.run_directory(out, plan.run_id)
    if making.same_artifact(plan.checkpoint, plan.recipe, plan.original.name, directory):
        return "to measure"
    return "to do again" if results.read_row(out, plan.run_id) else "to do"


def judge(plan: Plan, out: Path, keep: Keep) -> Row | None:
    """The row of a finished run after today's gates; None if it is not finished, or cannot be had now.

    That is so while another process is at it, or where its folder cannot be written: `run` waits, or says so.
    """
    directory = results.run_directory(out, plan.run_id)
    if not directory.exists():
        return None
    try:
        with _only_one(directory, wait=False):
            stored = finished(plan, out, keep)
            if stored is None:
                return None
            judged = stored | _verdict(plan, stored)
            return stored if judged == stored else _store(plan, out, stored)
    except (Timeout, ArtifactError):
        return None


def drop_artifact(out: Path, row: Row) -> None:
    """Remove a run's artifact and say so in its row; its figures stay."""
    directory = results.run_directory(out, row["run_id"])
    with _only_one(directory):
        row["artifact"] = None
        results.write_row(out, row)
        away = partial_name(directory / "artifact")
        shutil.rmtree(away, ignore_errors=True)
        with suppress(FileNotFoundError):
            (directory / "artifact").rename(away)  # what copies it meanwhile must not take a part for the whole
        shutil.rmtree(away, ignore_errors=True)


def blank_row(recipe: Recipe, run_id: str) -> Row:
    """A row that says what was asked for and holds no figure yet."""
    row: Row = dict.fromkeys(results.COLUMNS)
    return row | {
        "run_id": run_id,
        "status": "ok",
        "recipe": recipe.name,
        "model": recipe.model.path,
        "pruning_amount": _used(recipe, "prune", "amount"),
        "threshold": _used(recipe, "threshold", "value"),
        "stages": " ".join(step.label for step in recipe.steps),
        "format": recipe.output.format,
        "device": recipe.environment.device,
        "threads": recipe.environment.threads,
        "torch_version": versions()["torch"],
        "transformers_version": versions()["transformers"],
        "created_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }


def named_row(plan: Plan) -> Row:
    """A row with nothing in it but what is known of a run once it is planned."""
    return blank_row(plan.recipe, plan.run_id) | {
        "model": plan.original.name,
        "original_fingerprint": plan.checkpoint.fingerprint,
        "data_fingerprint": plan.texts.fingerprint,
    }


def failed_row(recipe: Recipe, error: Exception) -> Row:
    """The row of a run that could not even be planned."""
    return blank_row(recipe, _unplanned_id(recipe)) | {"status": "failed", "error": str(error)}


def forget_failure(recipe: Recipe, out: Path) -> None:
    """Remove the row of an earlier command that could not plan this recipe, which now can be."""
    shutil.rmtree(results.run_directory(out, _unplanned_id(recipe)), ignore_errors=True)


def _check_gates(gates: Gates, checkpoint: Checkpoint, labels: tuple[int, ...] | None) -> None:
    """Refuse a gate whose figure this model on these texts does not have."""
    if gates.accuracy_drop is not None and labels is None:
        raise RecipeError(
            "gates.accuracy_drop: the texts have no labels for it; write data.label=COLUMN or ~gates.accuracy_drop"
        )
    decides = decision(checkpoint.task, checkpoint.model.config) in ("class", "set")
    for gate in ("agreement", "agreement_low"):
        if getattr(gates, gate) is not None and not decides:
            raise RecipeError(
                f"gates.{gate}: this model decides on no label, so it has no agreement; write ~gates.{gate}"
            )


def _make(plan: Plan, directory: Path, force: bool) -> Row:
    parts = plan.checkpoint, plan.recipe, plan.original.name
    reuse = None if force else making.same_artifact(*parts, directory)
    figures = process.call(making.make, *parts, directory, reuse)
    return {"artifact": f"runs/{plan.run_id}/artifact", **figures}


def _measure(plan: Plan, out: Path, directory: Path) -> Row:
    job = Job(
        original=plan.original.directory,
        artifact=directory / "artifact",
        fingerprint=plan.checkpoint.fingerprint,
        task=plan.checkpoint.task,
        texts=plan.texts,
        settings=plan.recipe.evaluation,
        environment=plan.recipe.environment,
        cache=out / "originals",
    )
    return evaluate(job)


def _store(plan: Plan, out: Path, row: Row) -> Row:
    if row["status"] != "failed":
        row |= _verdict(plan, row)
        if row["artifact"]:
            artifact = out / row["artifact"]
            write_card(artifact, read_manifest(artifact), plan.recipe.made_by(), row)
    results.write_row(out, row)
    return row


def _verdict(plan: Plan, row: Row) -> Row:
    missed = results.missed_gates(plan.recipe.gates.model_dump(exclude_none=True), row)
    return {"status": "rejected" if missed else "ok", "error": missed}


def _check_unchanged(plan: Plan, directory: Path) -> None:
    """Refuse figures of an original that is not the one planned for: the sweep may have waited for days."""
    if stamps(plan.original.directory) != plan.checkpoint.stamps:
        shutil.rmtree(directory / "artifact", ignore_errors=True)
        raise ModelError(f"{plan.original.directory}: has changed since the command began; run the command again")


def _run_id(recipe: Recipe, original: str, texts: Texts) -> str:
    values = recipe.values()
    decisive = {key: value for key, value in values.items() if key not in ("gates", "model", "data")}
    return f"{recipe.name}-{_digest(decisive | {'original': original, 'texts': texts.fingerprint} | versions())}"


def _unplanned_id(recipe: Recipe) -> str:
    return f"{recipe.name}-{_digest(recipe.values() | {'gates': None})}"


def _digest(values: dict[str, Any]) -> str:
    ordered = values | {"stages": list(values["stages"].items())}  # sorting the keys would hide it
    return hashlib.sha256(json.dumps(ordered, sort_keys=True).encode()).hexdigest()[:12]


def _used(recipe: Recipe, kind: str, setting: str) -> Any:
    used = [getattr(step.stage, setting) for step in recipe.steps if step.stage.kind == kind]
    return used[0] if len(used) == 1 else " ".join(map(str, used)) or None


def _note(directory: Path, error: Exception) -> None:
    """Append an error to the run's log, with all that is known of where it came from."""
    with suppress(OSError), (directory / results.LOG_FILE).open("a", encoding="utf-8") as file:
        file.write("".join(traceback.format_exception(error)))


@contextmanager
def _only_one(directory: Path, *, wait: bool = True) -> Iterator[None]:
    """Work in a run's folder, while no other process or thread does; Timeout where one does and `wait` is False."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(directory / ".lock")
        lock.acquire(blocking=wait)
    except Timeout:
        raise
    except OSError as error:
        raise ArtifactError(f"{directory}: cannot be written ({error.strerror or error})") from error
    try:
        yield
    finally:
        lock.release()
