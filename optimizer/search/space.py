"""The key `search` of a recipe: what is sought, and within which ranges the recipe's own settings may change."""

import itertools
import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, FiniteFloat, WrapValidator, field_validator, model_validator

from optimizer.errors import PackageError, RecipeError
from optimizer.recipe import Recipe, parse
from optimizer.rows.gates import Bounds
from optimizer.rows.row import Group, columns
from optimizer.settings import Settings, build, nearest
from optimizer.stages import KNOBS


def _kept_whole(value: Any, check: Callable[[Any], float]) -> float:
    checked = check(value)
    return value if isinstance(value, int) else checked


Number = Annotated[FiniteFloat, WrapValidator(_kept_whole)]

_ON_GRID = 1e-9  # of a step: 0.3 / 0.05 is a little less than 6
_ALWAYS = (*columns("size"), "optimize_seconds")


def _of_the_artifact(*groups: Group) -> tuple[str, ...]:
    return tuple(column for column in columns(*groups) if not column.startswith("original_"))


_ON_EXAMPLES = _of_the_artifact("quality")
_ON_REPETITIONS = _of_the_artifact("latency", "memory")
COLUMNS = (*_ALWAYS, *_ON_EXAMPLES, *_ON_REPETITIONS)
"""The row's columns that can be sought after."""


class Range(Settings):
    """Numbers from `low` to `high`, both included; in multiples of `step` from `low`, or evenly on a log scale."""

    low: Number
    high: Number
    step: Number | None = None
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError("low must be less than high")
        if self.log and self.low <= 0:
            raise ValueError("log: true needs a low above 0")
        if self.step is not None:
            if self.step <= 0:
                raise ValueError("step must be above 0")
            if self.log:
                raise ValueError("step and log exclude each other; remove one")
            if not _on_grid(self.high, self.low, self.step):
                raise ValueError("high must be low plus a multiple of step")
        return self

    def __contains__(self, value: Any) -> bool:
        if not isinstance(value, int | float) or isinstance(value, bool) or not self.low <= value <= self.high:
            return False
        return self.step is None or _on_grid(value, self.low, self.step)

    def is_whole(self, own: Any) -> bool:
        """Whether only integers are meant: by its numbers, unless the recipe's own value is a float."""
        numbers = (self.low, self.high, *([] if self.step is None else [self.step]))
        return not isinstance(own, float) and all(isinstance(number, int) for number in numbers)


class Search(Settings):
    """Minimize or maximize one column of the row in `trials` runs, each key of `ranges` within its range or choices.

    `otherwise` are gates in place of the recipe's own where a model has not what these need, those of them that it has.
    `by` is how: tpe goes by what has been found, grid tries every combination, turns one range after the other, each of
    its choices beside the best so far; these two all of them, unless `trials` is less. bisect halves the one range that
    it has: for a setting of which more meets the gates sooner and less is what is sought. `holdout` is the share of the
    texts that are kept aside to report on, never fewer than 500 nor more than half; 0: none are.
    """

    minimize: str | None = None
    maximize: str | None = None
    by: Literal["tpe", "grid", "turns", "bisect"] = "tpe"
    trials: int = Field(default=20, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**32)
    holdout: float = Field(default=0.3, ge=0, le=0.5)
    ranges: dict[str, Range | list[Any]]
    otherwise: dict[str, float | None] = Field(default_factory=dict)

    @field_validator("otherwise")
    @classmethod
    def _known(cls, gates: dict[str, float | None]) -> dict[str, float | None]:
        bounds: dict[str, float | None] = build(Bounds, gates, "search.otherwise").model_dump(exclude_none=True)
        return bounds

    @field_validator("ranges", mode="before")
    @classmethod
    def _each(cls, ranges: Any) -> Any:
        if not isinstance(ranges, dict) or not ranges:
            raise ValueError(
                "write at least one setting with its range, such as stages.prune.amount: {low: 0, high: 0.5}"
            )
        return {str(key): _range(value, f"search.ranges.{key}") for key, value in ranges.items()}

    @property
    def direction(self) -> Literal["minimize", "maximize"]:
        """Which of the two it is."""
        return "maximize" if self.minimize is None else "minimize"

    @property
    def column(self) -> str:
        """The column that is sought after."""
        column = self.maximize if self.minimize is None else self.minimize
        assert column is not None
        return column


def settings(recipe: Mapping[str, Any]) -> Search:
    """The Search of a recipe that holds one, checked against the recipe: every end or choice of every range parses.

    `trials` of a grid is at most the number of its combinations, of turns at most that of their choices. Raises
    RecipeError, which says where, what and what to write instead.
    """
    goal = build(Search, recipe.get("search"), "search")
    if (goal.minimize is None) == (goal.maximize is None):
        raise RecipeError("search: one of minimize and maximize is required; write minimize: size_ratio")
    base = itself(recipe, goal)
    _check_column(goal, base)
    known = own_values(base)
    for key in goal.ranges:
        _check_key(key, base, known)
    if goal.by == "bisect":
        _check_bisected(goal, base)
    elif goal.by != "tpe":
        count = len(grid_of(recipe, goal).combinations)
        if goal.by == "turns":
            count = min(count, 1 + sum(len(choices(key, span)) - 1 for key, span in goal.ranges.items()))
        is_given = "trials" in goal.model_fields_set
        return goal.model_copy(update={"trials": min(goal.trials, count) if is_given else count})
    for key, span in goal.ranges.items():
        for value in span if isinstance(span, list) else (span.low, span.high):
            try:
                changed(recipe, {key: value})
            except RecipeError as error:
                raise RecipeError(f"search.ranges.{key}: {error}") from None
    return goal


def itself(recipe: Mapping[str, Any], goal: Search) -> Recipe:
    """The recipe without its search; that of choices may be in need of packages that not all its combinations need."""
    return changed(recipe, {}, installed=goal.by in ("tpe", "bisect"))


def changed(recipe: Mapping[str, Any], values: Mapping[str, Any], *, installed: bool = True) -> Recipe:
    """The recipe without its key `search`, with a value for some of the dotted keys that `own_values` gives.

    That of `engine` is several settings, which replace those alone.

    Errors as of `parse`.
    """
    plain = {key: value for key, value in recipe.items() if key != "search"}
    for key, value in values.items():
        place, _, setting = key.rpartition(".")
        if key == "engine" or place == "engine":
            several = value if key == "engine" else {setting: value}
            if not isinstance(several, Mapping):
                raise RecipeError(f"engine: {value!r}: expected settings that go together; write {{precision: int8}}")
            plain["engine"] = {**(plain.get("engine") or {}), **several}
            continue
        if not place:
            plain[setting] = value
            continue
        stages = {str(label): stage for label, stage in plain["stages"].items()}
        label = place.removeprefix("stages.")
        plain["stages"] = stages | {label: {**(stages[label] or {}), setting: value}}
    return parse(plain, installed=installed)


def own_values(recipe: Recipe) -> dict[str, Any]:
    """What a search may change, by dotted keys, with the values that the recipe itself gives."""
    own: dict[str, Any] = {"format": recipe.output.format}
    for step in recipe.steps:
        values = step.stage.model_dump() | step.routing.model_dump()
        own |= {f"stages.{step.label}.{setting}": value for setting, value in values.items()}
    engine = recipe.output.engine_settings
    if engine is None:
        return own
    settings = engine.model_dump()
    return own | {"engine": settings} | {f"engine.{setting}": value for setting, value in settings.items()}


class Grid(NamedTuple):
    """Every combination that can be run here, in the written order, the last key changing first; why others cannot."""

    combinations: list[dict[str, Any]]
    left_out: list[str]


def grid_of(recipe: Mapping[str, Any], goal: Search) -> Grid:
    """The combinations of a search by grid or turns, without those that are no recipe, or need what is not installed.

    Raises RecipeError for a choice that no combination can have, and when none is left.
    """
    spans = {key: choices(key, span) for key, span in goal.ranges.items()}
    kept: list[dict[str, Any]] = []
    refused: list[tuple[dict[str, Any], RecipeError]] = []
    for values in itertools.product(*spans.values()):
        combination = dict(zip(spans, values, strict=True))
        try:
            changed(recipe, combination)
            kept.append(combination)
        except RecipeError as error:
            refused.append((combination, error))
    missing = [(combination, error) for combination, error in refused if isinstance(error, PackageError)]
    possible = [*kept, *(combination for combination, _ in missing)]
    for key, choice in ((key, choice) for key, span in spans.items() for choice in span):
        if not any(is_within(combination[key], [choice]) for combination in possible):
            why = next(error for combination, error in refused if is_within(combination[key], [choice]))
            raise RecipeError(f"search.ranges.{key}: {why}")
    if not kept:
        raise missing[0][1]
    impossible = len(refused) - len(missing)
    lines = [f"{impossible} combinations that the formats do not have"] if impossible else []
    return Grid(kept, [*lines, *dict.fromkeys(str(error) for _, error in missing)])


def choices(key: str, span: Range | list[Any]) -> list[Any]:
    """The choices of a range, by its key; RecipeError for one that has no end of them."""
    if isinstance(span, list):
        return span
    if span.step is None:
        raise RecipeError(f"search.ranges.{key}: a grid has choices; write [4, 8], or a step beside low and high")
    return [span.low + index * span.step for index in range(round((span.high - span.low) / span.step) + 1)]


def is_within(value: Any, span: Range | list[Any]) -> bool:
    """Whether a value is in a range, or one of the choices."""
    return value in span if isinstance(span, Range) else json.dumps(value) in map(json.dumps, span)


def _range(value: Any, where: str) -> Range | list[Any]:
    if isinstance(value, dict):
        return build(Range, value, where)
    if isinstance(value, list) and value:
        return value
    raise RecipeError(f"{where}: {value!r}: expected a range or choices; write {{low: 0.1, high: 0.5}} or [4, 8]")


def _on_grid(value: float, low: float, step: float) -> bool:
    steps = (value - low) / step
    return abs(steps - round(steps)) <= _ON_GRID * max(1, abs(steps))


def _check_column(goal: Search, base: Recipe) -> None:
    where = f"search.{goal.direction}"
    if goal.column not in COLUMNS:
        raise RecipeError(f"{where}: unknown column '{goal.column}'; {nearest(goal.column, COLUMNS)}")
    unmeasured = (goal.column in _ON_EXAMPLES and base.evaluation.examples == 0) or (
        goal.column in _ON_REPETITIONS and base.evaluation.repetitions == 0
    )
    if unmeasured:
        raise RecipeError(f"{where}: this evaluation does not measure {goal.column}; write evaluation=full")


def _check_bisected(goal: Search, base: Recipe) -> None:
    spans = list(goal.ranges.values())
    if len(spans) != 1 or not isinstance(spans[0], Range) or spans[0].step is not None:
        raise RecipeError("search.by: bisect takes one range of numbers; write {low: 1, high: 6}, or by: tpe")
    if not base.gates.bounds():
        raise RecipeError("search.by: bisect goes by the gates, and there is none; write ++gates.agreement=0.99")


def _check_key(key: str, base: Recipe, known: Mapping[str, Any]) -> None:
    if key in known:
        return
    if key in KNOBS:
        knob = KNOBS[key].knob
        assert knob is not None
        label = next((step.label for step in base.steps if step.stage.knob == knob), KNOBS[key].kind)
        raise RecipeError(
            f"search.ranges.{key}: is a knob, not a setting of the recipe; write stages.{label}.{knob.setting}"
        )
    raise RecipeError(f"search.ranges: unknown key '{key}'; {nearest(key, known)}")
