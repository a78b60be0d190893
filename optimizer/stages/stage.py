"""What the driver knows of a stage, and what a stage knows of the model."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from pydantic import Field

from optimizer.calibration.statistics import Statistics
from optimizer.model.examples import Examples
from optimizer.model.outline import Outline
from optimizer.model.weight import Place, Role, Weight, Weights
from optimizer.settings import Settings

Transform = Callable[[Weight], Iterable[Weight]]
"""One weight in; none, one or more out."""


@dataclass(frozen=True)
class Context:
    """What a stage may ask about the model.

    `outline` is the model as earlier stages left it; `routed` gives the places of the weights that the step is for, by
    their names in the checkpoint; `log` takes a line for the run's log. `model` makes a torch model of it, in float32
    and in memory; `examples` gives the calibration texts as tokens, `[1, tokens]` by the names of the model's inputs,
    where the stage says that it is `calibrated`, and raises StageError where there are none; `statistics` what they
    show of the model that the stage finds.
    """

    outline: Outline
    routed: Mapping[str, Place]
    log: Callable[[str], None]
    model: Callable[[], Any]
    examples: Callable[[], Examples]
    statistics: Callable[[], Statistics]


@dataclass(frozen=True)
class Knob:
    """A setting of a stage that commands set by a name of its own, and sweep over.

    `warning` is what to say of a value above `much`.
    """

    name: str
    setting: str
    much: float | None = None
    warning: str = ""


def later(default: Any, **constraints: Any) -> Any:
    """A field that a stage got after its first release: recipes that leave it at its default keep their ids."""
    return Field(default=default, exclude_if=lambda value: value == default, **constraints)


class Stage(Settings):
    """Frozen settings whose fields are the stage's YAML keys; a stage states what differs from this one.

    `default_roles` are what it is for unless its step says; `packages` what it needs installed, `extra` what of ours
    brings them, if one does; `needs_floats` says that it cannot work on the codes that another stage left;
    `only_casts` that it changes no more than dtypes;
    `only_removes` that what it leaves in is meant to be as it was.
    """

    kind: ClassVar[str]
    default_roles: ClassVar[tuple[Role, ...]] = ("linear",)
    packages: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str | None] = None
    needs_floats: ClassVar[bool] = True
    only_casts: ClassVar[bool] = False
    only_removes: ClassVar[bool] = False
    knob: ClassVar[Knob | None] = None

    @property
    def calibrated(self) -> bool:
        """Whether it needs calibration texts."""
        return False

    def outline(self, before: Outline, routed: Mapping[str, Place]) -> Outline:
        """The outline as this stage leaves it: as it was, where only values change; reads no value.

        Raises StageError for a model that the stage does not fit.
        """
        return before

    def leaves_alone(self, before: Outline, routed: Mapping[str, Place]) -> Mapping[str, str]:
        """Those of the routed weights that it leaves as they are, each with the reason."""
        return {}

    def check(self, last: Outline) -> None:
        """Raise StageError where later stages leave a model with which this one cannot keep what its settings say."""

    def prepare(self, weights: Weights, context: Context) -> Transform:
        """Ready the stage; `weights` streams the routed weights as earlier stages left them."""
        raise NotImplementedError


class Routing(Settings):
    """Which weights a stage is for: glob patterns over their names, and roles (null: the stage's own).

    `optional` are roles that a model need not have: a step that is for no others is left out where it finds nothing.
    """

    only: list[str] = Field(default_factory=list)
    skip: list[str] = Field(default_factory=list)
    roles: list[Role] | None = None
    optional: list[Role] = Field(default_factory=list)


@dataclass(frozen=True)
class Step:
    """A stage under its label in the recipe, with the weights it is for."""

    label: str
    stage: Stage
    routing: Routing

    @property
    def roles(self) -> Sequence[Role]:
        """The roles that it is for: those it is given, else the stage's own."""
        return self.stage.default_roles if self.routing.roles is None else self.routing.roles

    @property
    def is_optional(self) -> bool:
        """Whether it is left out of a model that has nothing for it; never what patterns were written for."""
        routing = self.routing
        return not (routing.only or routing.skip) and set(self.roles) <= set(routing.optional)

    @property
    def settled(self) -> "Step":
        """The same, not optional any more."""
        return replace(self, routing=self.routing.model_copy(update={"optional": []}))

    @property
    def warning(self) -> str | None:
        """What to say before it is run, None if there is nothing."""
        knob = self.stage.knob
        value = getattr(self.stage, knob.setting) if knob else None
        if knob is None or knob.much is None or value is None or value <= knob.much:
            return None
        return f"stages.{self.label}: {knob.warning}"


def knob_values(steps: Sequence[Step], name: str) -> Any:
    """What the stages of a recipe that have this knob really use: the value, several in a text, None for none."""
    knobs = [(step.stage, step.stage.knob) for step in steps]
    used = [getattr(stage, knob.setting) for stage, knob in knobs if knob is not None and knob.name == name]
    return used[0] if len(used) == 1 else " ".join(map(str, used)) or None
