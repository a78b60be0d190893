"""A recipe: what to do with one model, as plain frozen values, checked before anything is read."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from optimizer.errors import RecipeError
from optimizer.evaluation.job import Environment, EvaluationSettings
from optimizer.evaluation.texts import DataSettings
from optimizer.model.locate import ModelSettings
from optimizer.rows.gates import GATES, Gates
from optimizer.settings import Settings, build, nearest
from optimizer.stages import STAGES
from optimizer.stages.stage import Routing, Step

Format = Literal["dense", "packed"]
_NAME = re.compile(r"\w[\w.-]*")  # it begins a run's id, which names a directory


class Output(Settings):
    """How the artifact is stored."""

    format: Format = "dense"
    also_pt: bool = False


@dataclass(frozen=True)
class Recipe:
    """One model, the stages in their order, what is stored, what is measured and what is demanded."""

    name: str
    steps: tuple[Step, ...]
    output: Output
    gates: Gates
    model: ModelSettings
    data: DataSettings
    evaluation: EvaluationSettings
    environment: Environment

    def made_by(self) -> dict[str, Any]:
        """What decides the artifact's bytes, as a recipe file's keys; holds no path."""
        return {
            "name": self.name,
            "stages": {step.label: _step_values(step) for step in self.steps},
            **self.output.model_dump(),
        }

    def values(self) -> dict[str, Any]:
        """Every setting, as the keys of a recipe file that gives this recipe again."""
        return {
            **self.made_by(),
            "gates": self.gates.bounds(),
            "model": self.model.model_dump(),
            "data": self.data.model_dump(),
            "evaluation": self.evaluation.model_dump(),
            **self.environment.model_dump(),
        }


KEYS = (
    "name",
    "stages",
    "format",
    "also_pt",
    "gates",
    "model",
    "data",
    "evaluation",
    "device",
    "threads",
    "seed",
)


SEARCH = "search"
"""The key that makes a search of many runs out of a recipe; `optimizer.search` reads it, `parse` refuses it."""


def parse(values: Mapping[str, Any]) -> Recipe:
    """A Recipe from a plain mapping of KEYS; RecipeError says where, what and what to write instead."""
    for key in values:
        if key not in KEYS:
            raise RecipeError(f"recipe: unknown key '{key}'; {nearest(str(key), KEYS)}")
    name = values.get("name", "unnamed")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise RecipeError(f"name: {name!r}: expected a word; write name=WORD")
    recipe = Recipe(
        name=name,
        steps=_steps(values.get("stages")),
        output=build(Output, _given(values, Output), ""),
        gates=build(Gates, values.get("gates"), "gates"),
        model=build(ModelSettings, values.get("model"), "model"),
        data=build(DataSettings, values.get("data"), "data"),
        evaluation=build(EvaluationSettings, values.get("evaluation"), "evaluation"),
        environment=build(Environment, _given(values, Environment), ""),
    )
    _check_order(recipe)
    _check_gates(recipe)
    return recipe


def _given(values: Mapping[str, Any], kind: type[Settings]) -> dict[str, Any]:
    """The fields of `kind` that `values` sets; a null means the default."""
    return {key: values[key] for key in kind.model_fields if values.get(key) is not None}


def _steps(stages: Any) -> tuple[Step, ...]:
    if stages is None:
        return ()
    if not isinstance(stages, Mapping):
        raise RecipeError(f"stages: expected a mapping of label: settings, found {type(stages).__name__}")
    return tuple(_step(str(label), settings) for label, settings in stages.items())


def _step(label: str, settings: Any) -> Step:
    where = f"stages.{label}"
    if settings is None:
        settings = {}
    if not isinstance(settings, Mapping):
        raise RecipeError(f"{where}: expected a mapping of settings, found {settings!r}; write {where}: {{}}")
    kind = settings.get("stage", label)
    if not isinstance(kind, str) or kind not in STAGES:
        raise RecipeError(f"{where}: unknown stage '{kind}'; {nearest(str(kind), STAGES)}")
    stage = STAGES[kind]
    for key in settings:
        known = ["stage", *Routing.model_fields, *stage.model_fields]
        if key not in known:
            raise RecipeError(f"{where}: unknown key '{key}'; {nearest(str(key), known)}")
    routing = {key: settings[key] for key in Routing.model_fields if settings.get(key) is not None}
    own = {key: value for key, value in settings.items() if key in stage.model_fields}
    return Step(label, build(stage, own, where), build(Routing, routing, where))


def _step_values(step: Step) -> dict[str, Any]:
    routing = step.routing.model_dump(exclude_defaults=True)
    return {"stage": step.stage.kind, **step.stage.model_dump(), **routing}


def _check_order(recipe: Recipe) -> None:
    for index, step in enumerate(recipe.steps):
        for earlier in recipe.steps[:index]:
            same_roles = set(step.roles) & set(earlier.roles)
            if earlier.stage.makes_codes and step.stage.needs_floats and same_roles:
                raise RecipeError(
                    f"stages.{step.label}: {step.stage.kind} cannot follow {earlier.stage.kind}, which leaves integer "
                    f"codes; write {step.label} before {earlier.label}"
                )
        others = [other.stage for other in recipe.steps if other is not step]
        reason = step.stage.conflict(others, recipe.output.format)
        if reason:
            raise RecipeError(f"stages.{step.label}: {reason}")


def _check_gates(recipe: Recipe) -> None:
    measured = {"examples": recipe.evaluation.examples != 0, "repetitions": recipe.evaluation.repetitions != 0}
    for gate in recipe.gates.bounds():
        if not all(measured.get(need, True) for need in GATES[gate].needs):
            raise RecipeError(
                f"gates.{gate}: this evaluation does not measure it; write evaluation=full, or ~gates.{gate}"
            )
