"""One run, from a recipe to its row; read this first."""

import hashlib
import json
import logging
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from optimizer import interrupt, results, staging
from optimizer.artifact.card import write_card
from optimizer.artifact.manifest import read_manifest, verify, versions
from optimizer.artifact.write import write
from optimizer.checkpoint import Checkpoint, fingerprint, open_checkpoint
from optimizer.errors import ArtifactError, OptimizerError, RecipeError
from optimizer.evaluation import size
from optimizer.evaluation.measure import Job, evaluate
from optimizer.evaluation.predict import decision
from optimizer.evaluation.texts import Texts, check_labels, read
from optimizer.locate import Original, locate
from optimizer.recipe import Gates, Recipe
from optimizer.results import Row
from optimizer.yaml import dump

log = logging.getLogger(__name__)


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
    return Plan(recipe, original, checkpoint, texts, _run_id(recipe, fingerprint(original.directory), texts))


def run(plan: Plan, out: Path, *, force: bool = False) -> Row:
    """Make the artifact, measure it, judge it, and store the row; a finished run is only judged again.

    Whatever goes wrong becomes a failed row; only a row that cannot be stored raises ArtifactError.
    """
    if not force and (stored := _finished(plan, out)):
        return _store(plan, out, stored)
    row = blank_row(plan.recipe, plan.run_id) | {"model": plan.original.name}
    directory = results.run_directory(out, plan.run_id)
    with _run_log(directory):
        try:
            row |= _optimize(plan, directory)
            row |= _measure(plan, out, directory)
        except OptimizerError as error:
            row |= {"status": "failed", "error": str(error)}
            log.error("%s", error)
        except Exception as error:
            row |= {"status": "failed", "error": f"{type(error).__name__}: {error}".splitlines()[0]}
            log.error("%s", traceback.format_exc())
        interrupt.check()
        return _store(plan, out, row)


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


def failed_row(recipe: Recipe, error: Exception) -> Row:
    """The row of a run that could not even be planned."""
    run_id = f"{recipe.name}-{_digest(recipe.values() | {'gates': None})}"
    return blank_row(recipe, run_id) | {"status": "failed", "error": str(error)}


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


def _optimize(plan: Plan, directory: Path) -> Row:
    start = time.perf_counter()
    torch.set_num_threads(plan.recipe.environment.threads)
    (directory / "recipe.yaml").write_text(dump(plan.recipe.values()), encoding="utf-8")
    if plan.checkpoint.unknown:
        log.info("carried over as they are, the model does not know them: %s", ", ".join(plan.checkpoint.unknown))
    if plan.checkpoint.missing:
        log.warning("not in the original, random whenever it is loaded: %s", ", ".join(plan.checkpoint.missing))
    staged = staging.prepare(plan.checkpoint, plan.recipe, log.info)
    write(staged, plan.recipe, plan.original.name, directory / "artifact")
    seconds = time.perf_counter() - start
    return {"artifact": f"runs/{plan.run_id}/artifact", "optimize_seconds": seconds}


def _measure(plan: Plan, out: Path, directory: Path) -> Row:
    artifact = directory / "artifact"
    figures: Row = dict(size.measure(plan.checkpoint, artifact))
    job = Job(
        original=plan.original.directory,
        artifact=artifact,
        fingerprint=fingerprint(plan.original.directory),
        task=plan.checkpoint.task,
        texts=plan.texts,
        settings=plan.recipe.evaluation,
        environment=plan.recipe.environment,
        cache=out / "originals",
    )
    return figures | evaluate(job)


def _store(plan: Plan, out: Path, row: Row) -> Row:
    if row["status"] != "failed":
        missed = results.missed_gates(plan.recipe.gates.model_dump(exclude_none=True), row)
        row |= {"status": "rejected" if missed else "ok", "error": missed}
        artifact = results.run_directory(out, plan.run_id) / "artifact"
        write_card(artifact, read_manifest(artifact), plan.recipe.made_by(), row)
    results.write_row(out, row)
    return row


def _finished(plan: Plan, out: Path) -> Row | None:
    row = results.read_row(out, plan.run_id)
    if row is None or row["status"] == "failed":
        return None
    try:
        verify(results.run_directory(out, plan.run_id) / "artifact")
    except ArtifactError as error:
        log.warning("%s", error)
        return None
    return row


def _run_id(recipe: Recipe, original: str, texts: Texts) -> str:
    values = recipe.values()
    decisive = {key: value for key, value in values.items() if key not in ("gates", "model", "data")}
    return f"{recipe.name}-{_digest(decisive | {'original': original, 'texts': texts.fingerprint} | versions())}"


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def _used(recipe: Recipe, kind: str, setting: str) -> Any:
    used = [getattr(step.stage, setting) for step in recipe.steps if step.stage.kind == kind]
    return used[0] if len(used) == 1 else " ".join(map(str, used)) or None


@contextmanager
def _run_log(directory: Path) -> Iterator[None]:
    """Everything that this package logs, in the run's own file."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(directory / "run.log", mode="w", encoding="utf-8")
    except OSError as error:
        raise ArtifactError(f"{directory}: cannot be written ({error.strerror or error})") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    package = logging.getLogger("optimizer")
    package.addHandler(handler)
    try:
        yield
    finally:
        package.removeHandler(handler)
        handler.close()
