"""A recipe checked against its model and its texts, before anything is computed."""

import hashlib
import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import torch

from optimizer.artifact.manifest import versions
from optimizer.errors import RecipeError
from optimizer.evaluation.predict import decision
from optimizer.evaluation.texts import Texts, check_labels, read
from optimizer.model.checkpoint import Checkpoint, open_checkpoint
from optimizer.model.locate import Original, locate
from optimizer.recipe import Recipe
from optimizer.rows.gates import GATES, Gates
from optimizer.rows.row import Row
from optimizer.stages import staging

_LACKING = {
    "labels": "the texts have no labels for it; write data.label=COLUMN or ~gates.{}",
    "decision": "this model decides on no label, so it has no agreement; write ~gates.{}",
}


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


def _check_gates(gates: Gates, checkpoint: Checkpoint, labels: tuple[int, ...] | None) -> None:
    """Refuse a gate whose figure this model on these texts does not have."""
    lacking = {
        "labels": labels is None,
        "decision": decision(checkpoint.task, checkpoint.model.config) not in ("class", "set"),
    }
    for gate in gates.bounds():
        for need in GATES[gate].needs:
            if lacking.get(need):
                raise RecipeError(f"gates.{gate}: {_LACKING[need].format(gate)}")


def _run_id(recipe: Recipe, original: str, texts: Texts) -> str:
    values = recipe.values()
    decisive = {key: value for key, value in values.items() if key not in ("gates", "model", "data")}
    return f"{recipe.name}-{_digest(decisive | {'original': original, 'texts': texts.fingerprint} | versions())}"


def unplanned_id(recipe: Recipe) -> str:
    return f"{recipe.name}-{_digest(recipe.values() | {'gates': None})}"


def _digest(values: dict[str, Any]) -> str:
    ordered = values | {"stages": list(values["stages"].items())}  # sorting the keys would hide it
    return hashlib.sha256(json.dumps(ordered, sort_keys=True).encode()).hexdigest()[:12]


def blank_row(recipe: Recipe, run_id: str) -> Row:
    """A row that says what was asked for and holds no figure yet."""
    return Row(
        run_id=run_id,
        status="ok",
        recipe=recipe.name,
        model=recipe.model.path,
        pruning_amount=_used(recipe, "prune", "amount"),
        threshold=_used(recipe, "threshold", "value"),
        stages=" ".join(step.label for step in recipe.steps),
        format=recipe.output.format,
        device=recipe.environment.device,
        threads=recipe.environment.threads,
        torch_version=versions()["torch"],
        transformers_version=versions()["transformers"],
        created_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )


def named_row(plan: Plan) -> Row:
    """A row with nothing in it but what is known of a run once it is planned."""
    return replace(
        blank_row(plan.recipe, plan.run_id),
        model=plan.original.name,
        original_fingerprint=plan.checkpoint.fingerprint,
        data_fingerprint=plan.texts.fingerprint,
    )


def failed_row(recipe: Recipe, error: Exception) -> Row:
    """The row of a run that could not even be planned."""
    return replace(blank_row(recipe, unplanned_id(recipe)), status="failed", error=str(error))


def _used(recipe: Recipe, kind: str, setting: str) -> Any:
    used = [getattr(step.stage, setting) for step in recipe.steps if step.stage.kind == kind]
    return used[0] if len(used) == 1 else " ".join(map(str, used)) or None
