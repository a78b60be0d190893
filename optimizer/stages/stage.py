"""What the driver knows of a stage, and what a stage knows of the model."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from pydantic import Field

from optimizer.model.weight import Place, Role, Weight, Weights
from optimizer.settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Transform = Callable[[Weight], Iterable[Weight]]


@dataclass(frozen=True)
class Context:
    """What a stage may ask about the model.

    `model` is built on the meta device and holds no values; `routed` gives the places of the weights that the step
    is for, by their names in the checkpoint; `loads_as_stored` says whether weights load in the dtype they are stored
    in, whatever config.json says; `log` takes a line for the run's log.
    """

    model: "PreTrainedModel"
    routed: Mapping[str, Place]
    loads_as_stored: bool
    log: Callable[[str], None]


@dataclass(frozen=True)
class Prepared:
    """A stage made ready for one model: one weight in, one or more out.

    `config` is merged into config.json; None removes a key.
    """

    transform: Transform
    config: Mapping[str, Any] = field(default_factory=dict)


class Routing(Settings):
    """Which weights a stage is for: glob patterns over their names, and roles (null: the stage's own)."""

    only: list[str] = Field(default_factory=list)
    skip: list[str] = Field(default_factory=list)
    roles: list[Role] | None = None


class Stage(Protocol):
    """Frozen settings whose fields are the stage's YAML keys.

    `makes_codes`: leaves integer codes in place of numbers; `needs_floats`: cannot work on such codes;
    `loads_as_stored`: in a dense artifact, what it leaves alone loads in the dtype it is stored in.
    """

    kind: ClassVar[str]
    default_roles: ClassVar[tuple[Role, ...]]
    makes_codes: ClassVar[bool]
    needs_floats: ClassVar[bool]
    loads_as_stored: ClassVar[bool]

    def conflict(self, others: "Sequence[Stage]", output_format: str) -> str | None:
        """Why this stage cannot be in a recipe with `others` and this format, and what to write; None if it can."""

    def prepare(self, weights: Weights, context: Context) -> Prepared:
        """Ready the stage; `weights` streams the routed weights as earlier stages left them."""

    def stored_bits(self, bits: float, output_format: str) -> float:
        """About how many bits a value takes in the file after this stage, of `bits` before; rather too many."""

    def model_dump(self) -> dict[str, Any]:
        """The settings as plain values."""


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
