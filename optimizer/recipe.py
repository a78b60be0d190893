"""A recipe: what to do with one model, as plain frozen values, checked before anything is read."""

import importlib.util
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import Field, field_validator

from optimizer.data.texts import OURS, DataSettings
from optimizer.errors import PackageError, RecipeError, install
from optimizer.evaluation.job import Environment, EvaluationSettings
from optimizer.formats import FORMATS
from optimizer.model.checkpoint import Checkpoint
from optimizer.model.examples import Examples
from optimizer.model.locate import ModelSettings
from optimizer.model.outline import Outline
from optimizer.rows.gates import GATES, Gates
from optimizer.settings import Settings, build, nearest
from optimizer.stages import STAGES, staging
from optimizer.stages.stage import Routing, Step
from optimizer.stages.staging import Staged
from optimizer.stages.untouched import Remainder, remainder
from optimizer.yaml import PACKAGE, dump

_NAME = re.compile(r"\w[\w.-]*")  # it begins a run's id, which names a directory


class Output(Settings):
    """How the artifact is stored; `engine` holds the format's own settings, where it has any."""

    format: str = Field(default="dense", json_schema_extra={"enum": list(FORMATS)})
    also_pt: bool = False
    engine: dict[str, Any] = Field(default_factory=dict)

    @field_validator("format")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in FORMATS:
            raise ValueError(f"unknown format; {nearest(name, FORMATS)}")
        return name

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Output":
        """Those of a recipe's keys that are about it; a null means the default."""
        return build(cls, _given(record, cls), "")

    @property
    def engine_settings(self) -> Settings | None:
        """`engine` as the format's own settings; None for a format without.

        Raises RecipeError for those that it does not have.
        """
        kind = FORMATS[self.format].settings
        if kind is None and self.engine:
            raise RecipeError(f"engine: the format {self.format} has no settings of its own; remove it")
        return None if kind is None else build(kind, self.engine, "engine")

    def values(self) -> dict[str, Any]:
        """The keys of a recipe file; settings of the format only where they are not its defaults."""
        settings = self.engine_settings
        engine = {} if settings is None else settings.model_dump(exclude_defaults=True)
        return {"format": self.format, "also_pt": self.also_pt, **({"engine": engine} if engine else {})}


@dataclass(frozen=True)
class Recipe:
    """One model, the stages in their order, what is stored, what is measured and what is demanded.

    `allow_nonfinite` are patterns of the weights that may hold NaN or infinity. `left_out` has a line for each optional
    stage that a model has nothing for: see `fitted`.
    """

    name: str
    steps: tuple[Step, ...]
    output: Output
    gates: Gates
    model: ModelSettings
    data: DataSettings
    evaluation: EvaluationSettings
    environment: Environment
    allow_nonfinite: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def made_by(self) -> dict[str, Any]:
        """What decides the artifact's bytes, as a recipe file's keys; holds no path."""
        return {
            "name": self.name,
            "stages": {step.label: _step_values(step) for step in self.steps},
            **self.output.values(),
            **({"allow_nonfinite": list(self.allow_nonfinite)} if self.allow_nonfinite else {}),
        }

    @property
    def packages(self) -> tuple[str, ...]:
        """The packages that its stages and its format need."""
        return *(name for step in self.steps for name in step.stage.packages), *FORMATS[self.output.format].packages

    @property
    def calibrated(self) -> bool:
        """Whether it needs texts to calibrate on."""
        by_stage = any(step.stage.calibrated for step in self.steps)
        return by_stage or FORMATS[self.output.format].calibrated(self.output.engine_settings)

    def laid(self, original: Outline) -> list[staging.Laid]:
        """The steps laid over an original's outline, which raises what `staging.lay` does.

        Raises StageError for a model that the format does not store, whatever the steps make of it.
        """
        format_ = FORMATS[self.output.format]
        format_.check(original)
        return staging.lay(replace(original, casts=format_.casts), self.steps)

    def fitted(self, original: Outline) -> "Recipe":
        """The recipe for this original alone, none of its stages optional any more; raises what `laid` does."""
        laid = self.laid(original)
        kept = tuple(each.step.settled for each in laid if each.left_out is None)
        lines = (f"stages.{each.step.label} is left out: {each.left_out}" for each in laid if each.left_out)
        return replace(self, steps=kept, left_out=(*self.left_out, *lines))

    def remainder(self, original: Outline) -> Remainder | None:
        """What its stages leave alone; None where an engine has the weights last and decides for itself."""
        return remainder(original, self.laid(original)) if FORMATS[self.output.format].holds_weights else None

    def staged(
        self,
        original: Checkpoint,
        name: str,
        log: Callable[[str], None],
        examples: Callable[[], Examples] | None = None,
        keep: staging.Keep = staging.computed,
    ) -> Staged:
        """The original, which goes by `name`, with the stages made ready; the rest as of `staging.prepare`."""
        recipe = self.fitted(original.outline)
        for line in recipe.left_out:
            log(line)
        casts = FORMATS[self.output.format].casts
        return staging.prepare(
            original, name, recipe.steps, recipe.made_by(), casts, log, examples, self.allow_nonfinite, keep
        )

    def values(self) -> dict[str, Any]:
        """Every setting, as the keys of a recipe file that gives this recipe again."""
        return {
            **self.made_by(),
            "gates": self.gates.values(),
            "model": self.model.values(),
            "data": self.data.values(),
            "evaluation": self.evaluation.values(),
            **self.environment.model_dump(),
        }

    def file(self) -> str:
        """The text of a recipe file that gives this recipe again."""
        return f"{PACKAGE}\n{dump(self.values())}"


KEYS = (
    "name",
    "stages",
    "format",
    "also_pt",
    "engine",
    "allow_nonfinite",
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


def parse(values: Mapping[str, Any], *, installed: bool = True) -> Recipe:
    """A Recipe from a plain mapping of KEYS; RecipeError says where, what and what to write instead.

    A PackageError for a package that it needs and that is not there; none where `installed` is False.
    """
    for key in values:
        if key not in KEYS:
            raise RecipeError(f"recipe: unknown key '{key}'; {nearest(str(key), KEYS)}")
    name = values.get("name", "unnamed")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise RecipeError(f"name: {name!r}: expected a word; write name=WORD")
    _check_said(values)
    recipe = Recipe(
        name=name,
        steps=_steps(values.get("stages")),
        output=Output.of(values),
        gates=build(Gates, values.get("gates"), "gates"),
        model=build(ModelSettings, values.get("model"), "model"),
        data=build(DataSettings, values.get("data"), "data"),
        evaluation=build(EvaluationSettings, values.get("evaluation"), "evaluation"),
        environment=build(Environment, _given(values, Environment), ""),
        allow_nonfinite=_patterns(values.get("allow_nonfinite")),
    )
    _ = recipe.output.engine_settings, recipe.gates.allowances
    if recipe.output.also_pt and not FORMATS[recipe.output.format].holds_weights:
        raise RecipeError(f"also_pt: the format {recipe.output.format} holds no weights by their names; remove it")
    if installed:
        _check_packages(recipe)
    staging.check(recipe.steps, FORMATS[recipe.output.format].casts)
    _check_gates(recipe)
    return recipe


def _check_said(values: Mapping[str, Any]) -> None:
    """Refuse what would be made of a recipe without having been said: one without stages, or of the demo."""
    if values.get("stages", ...) is None:
        raise RecipeError("stages: null; to leave the original as it is write recipe=baseline, or stages: {}")
    data, model = values.get("data") or {}, values.get("model") or {}
    own = isinstance(data, Mapping) and data.get("path", OURS[0]) not in OURS
    if own and isinstance(model, Mapping) and "path" not in model:
        raise RecipeError("model: data.path is given and no model; write model.path=DIR, or model.path=demo")


def _given(values: Mapping[str, Any], kind: type[Settings]) -> dict[str, Any]:
    """The fields of `kind` that `values` sets; a null means the default."""
    return {key: values[key] for key in kind.model_fields if values.get(key) is not None}


def _patterns(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(pattern, str) for pattern in value):
        raise RecipeError(f"allow_nonfinite: {value!r}: expected a list of patterns; write allow_nonfinite=['*.mask']")
    return tuple(value)


PLACES = ("before", "after")
"""The settings by which a stage stands before or after another one, by its label, and not where it is written."""


def _steps(stages: Any) -> tuple[Step, ...]:
    if stages is None:
        return ()
    if not isinstance(stages, Mapping):
        raise RecipeError(f"stages: expected a mapping of label: settings, found {type(stages).__name__}")
    steps = {str(label): _step(str(label), settings) for label, settings in stages.items()}
    order = list(steps)
    for label, settings in stages.items():
        _move(order, str(label), settings or {})
    return tuple(steps[label] for label in order)


def _move(order: list[str], label: str, settings: Mapping[str, Any]) -> None:
    """Put a stage where its settings say that it stands: of these two nothing but the order is kept."""
    said = [key for key in PLACES if settings.get(key) is not None]
    if len(said) > 1:
        raise RecipeError(f"stages.{label}: before and after exclude each other; remove one")
    for key in said:
        others = [other for other in order if other != label]
        if settings[key] not in others:
            tail = nearest(str(settings[key]), others)
            raise RecipeError(f"stages.{label}.{key}: there is no other stage '{settings[key]}'; {tail}")
        order.remove(label)
        order.insert(order.index(settings[key]) + (key == "after"), label)


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
        known = ["stage", *PLACES, *Routing.model_fields, *stage.model_fields]
        if key not in known:
            raise RecipeError(f"{where}: unknown key '{key}'; {nearest(str(key), known, where)}")
    routing = {key: settings[key] for key in Routing.model_fields if settings.get(key) is not None}
    own = {key: value for key, value in settings.items() if key in stage.model_fields}
    return Step(label, build(stage, own, where), build(Routing, routing, where))


def _step_values(step: Step) -> dict[str, Any]:
    routing = step.routing.model_dump(exclude_defaults=True)
    return {"stage": step.stage.kind, **step.stage.model_dump(), **routing}


def _check_packages(recipe: Recipe) -> None:
    for step in recipe.steps:
        for package in _missing(step.stage.packages):
            remedy = install(step.stage.extra) if step.stage.extra else f"pip install {package}"
            raise PackageError(f"stages.{step.label}: needs the package {package}; run: {remedy}")
    kind = FORMATS[recipe.output.format]
    for package in _missing(kind.packages):
        remedy = (
            f"{install(kind.extra)}; or write recipe=compact, which needs none"
            if kind.extra
            else f"pip install {package}"
        )
        raise PackageError(f"format: needs the package {package}; run: {remedy}")


def _missing(packages: tuple[str, ...]) -> list[str]:
    return [package for package in packages if importlib.util.find_spec(package) is None]


def _check_gates(recipe: Recipe) -> None:
    measured = {"examples": recipe.evaluation.examples != 0, "repetitions": recipe.evaluation.repetitions != 0}
    for gate in recipe.gates.bounds():
        if not all(measured.get(need, True) for need in GATES[gate].needs):
            raise RecipeError(
                f"gates.{gate}: this evaluation does not measure it; write evaluation=full, or ~gates.{gate}"
            )
