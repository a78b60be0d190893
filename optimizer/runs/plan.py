"""A recipe checked against its model and its texts, before anything is computed."""

import hashlib
import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from optimizer.errors import ArtifactError, OptimizerError, RecipeError
from optimizer.evaluation.predict import having
from optimizer.manifest import versions
from optimizer.model.embedding import embedder
from optimizer.model.locate import name_of
from optimizer.processes.processor import described
from optimizer.recipe import Recipe
from optimizer.rows.figure import Need
from optimizer.rows.found import find
from optimizer.rows.gates import GATES
from optimizer.rows.row import Row
from optimizer.runs.source import Source, Sources
from optimizer.stages.stage import knob_values

_LACKING: dict[Need, str] = {
    "labels": "the texts have no labels for it; write data.label=COLUMN or ~gates.{}",
    "group": "the texts are in no groups; write data.group=COLUMN or ~gates.{}",
    "decision": "this model decides on no label, so it has no agreement; write ~gates.{}",
    "logits": "this model gives embeddings, no logits; write ~gates.{}",
    "class": "this model gives no text one label of several; write ~gates.{}",
    "set": "this model gives no text a set of labels; write ~gates.{}",
    "text label": "this model gives no text a label; write ~gates.{}",
    "number": "this model gives no text one score; write ~gates.{}",
    "vector": "this model gives no embeddings; write ~gates.{}",
    "order": "this model gives neither scores nor embeddings; write ~gates.{}",
    "tags": "this model labels no tokens; write ~gates.{}",
    "spans": "this model finds no answers in texts; write ~gates.{}",
    "text": "this model does not go on with texts; write ~gates.{}",
    "heard": "this model does not write what it hears; write ~gates.{}",
}
"""Why a gate has no figure, for each of what it may need that a model or its texts have not."""
OF_TEXTS = ("labels", "group")
"""Those that the texts have not."""


@dataclass(frozen=True)
class Plan:
    """A recipe fitted to its source: headers are read, tensors are not; `earlier` is what its gates are against."""

    recipe: Recipe
    source: Source
    run_id: str
    earlier: Row | None = None


def plan(recipe: Recipe, sources: Sources | None = None) -> Plan:
    """Find the original and the texts, in `sources` if they are open already, and check the recipe against them.

    Raises an OptimizerError when anything is missing, damaged or does not fit.
    """
    source = (sources or Sources()).of(recipe.model, recipe.data, calibrated=recipe.calibrated)
    recipe = recipe.fitted(source.checkpoint.outline)
    _check_data(recipe, source)
    _check_measured(recipe, source)
    if recipe.environment.device != "cpu" and not torch.cuda.is_available():
        raise RecipeError(f"device: '{recipe.environment.device}' is not there; write device=cpu")
    return Plan(recipe, source, _run_id(recipe, source), _earlier(recipe, source))


def plan_all(recipes: list[Recipe], out: Path) -> list[Plan | OptimizerError]:
    """A plan for each recipe, or why there is none; each original and its texts are opened once.

    Raises the first error when no recipe can be planned, and RecipeError when `out` lies in an original's folder.
    """
    sources = Sources()
    plans = [_plan(recipe, sources) for recipe in recipes]
    failures = [plan for plan in plans if isinstance(plan, OptimizerError)]
    if failures and len(failures) == len(plans):
        raise failures[0]
    place = out.resolve()
    for directory in {plan.source.original.directory for plan in plans if isinstance(plan, Plan)}:
        if place.is_relative_to(directory):
            raise RecipeError(
                f"out: '{out}' lies in the model's own folder, which it would change; write out=DIR elsewhere"
            )
    return plans


def _plan(recipe: Recipe, sources: Sources) -> Plan | OptimizerError:
    try:
        return plan(recipe, sources)
    except OptimizerError as error:
        return error


def _check_measured(recipe: Recipe, source: Source) -> None:
    """Refuse a gate that this model on these texts does not have."""
    for gate in recipe.gates.bounds():
        if need := lacking(gate, source):
            raise RecipeError(f"gates.{gate}: {_LACKING[need].format(gate)}")


def _check_data(recipe: Recipe, source: Source) -> None:
    """Refuse what is said of the texts and means nothing to this model, and an embedding model of unknown modules."""
    checkpoint, data = source.checkpoint, recipe.data
    has = having(checkpoint.task, checkpoint.model.config)
    embeds = checkpoint.task == "encoder" and checkpoint.model.main_input_name == "input_ids"
    if embeds and recipe.evaluation.examples != 0:
        embedder(checkpoint.directory, data.pooling)
    elif data.pooling and not embeds:
        raise RecipeError("data.pooling: is for encoders of text, which this model is not; remove it")
    if data.tokens and "tags" not in has:
        raise RecipeError(
            "data.tokens: is for models that label words, which this one does not; write data.text=COLUMN"
        )
    if data.group and "number" not in has and not ("class" in has and source.has_labels):
        raise RecipeError("data.group: nothing of this model on these texts is told by groups; remove it")


def lacking(gate: str, source: Source) -> Need | None:
    """What a gate needs and this model on these texts has not, whatever is evaluated; None if it has all."""
    checkpoint = source.checkpoint
    has = {"examples", "repetitions", *having(checkpoint.task, checkpoint.model.config)}
    has |= {"labels"} if source.has_labels else set()
    has |= {"group"} if source.has_groups else set()
    # What a model lacks is said before what its texts lack.
    return next((need for need in sorted(GATES[gate].needs, key=OF_TEXTS.__contains__) if need not in has), None)


def _earlier(recipe: Recipe, source: Source) -> Row | None:
    """The row that `gates.against` names: the only one there, or the only one of this recipe."""
    if recipe.gates.against is None:
        return None
    place = Path(recipe.gates.against).expanduser()
    try:
        found = [result.row for result in find(place)]
    except ArtifactError as error:
        raise RecipeError(f"gates.against: {error}") from None
    rows = found if len(found) == 1 else [row for row in found if row.recipe == recipe.name]
    if len(rows) != 1:
        raise RecipeError(
            f"gates.against: '{place}' holds {len(found)} runs, {len(rows)} of the recipe '{recipe.name}'; "
            f"write gates.against={place / 'runs' / found[-1].run_id}"
        )
    if rows[0].data_fingerprint not in (None, source.data_fingerprint):
        raise RecipeError(
            f"gates.against: '{place}' was measured on other texts; run that recipe on these, or leave it out"
        )
    return rows[0]


def _run_id(recipe: Recipe, source: Source) -> str:
    decisive = {"original": source.fingerprint, "texts": source.data_fingerprint} | versions(recipe.packages)
    if source.calibration:
        decisive["calibration"] = source.calibration.fingerprint
    if recipe.data.pooling:
        decisive["pooling"] = recipe.data.pooling
    values = recipe.values() | decisive
    return f"{recipe.name}-{_digest({key: values[key] for key in values.keys() - {'gates', 'model', 'data'}})}"


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
        model=name_of(recipe.model),
        pruning_amount=knob_values(recipe.steps, "pruning_amount"),
        threshold=knob_values(recipe.steps, "threshold"),
        stages=" ".join(step.label for step in recipe.steps),
        format=recipe.output.format,
        evaluation=recipe.evaluation.extent,
        data_part=recipe.data.part,
        device=recipe.environment.device,
        threads=recipe.environment.threads,
        processor=described(),
        torch_version=versions()["torch"],
        transformers_version=versions()["transformers"],
        created_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )


def named_row(plan: Plan) -> Row:
    """A row with nothing in it but what is known of a run once it is planned."""
    calibration = plan.source.calibration
    return replace(
        blank_row(plan.recipe, plan.run_id),
        model=plan.source.original.name,
        original_fingerprint=plan.source.fingerprint,
        data_fingerprint=plan.source.data_fingerprint,
        calibration_examples=calibration.examples if calibration else None,
        calibration_fingerprint=calibration.fingerprint if calibration else None,
        original_commit=plan.source.original.commit,
    )


def failed_row(recipe: Recipe, error: Exception) -> Row:
    """The row of a run that could not even be planned."""
    return replace(blank_row(recipe, unplanned_id(recipe)), status="failed", error=str(error))
