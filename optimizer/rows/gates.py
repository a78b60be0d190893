"""Gates: bounds that the figures of a row must meet; one table of them all."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from optimizer.rows import allowances
from optimizer.rows.allowances import Allowance
from optimizer.rows.row import Row
from optimizer.settings import Settings

Need = Literal["examples", "repetitions", "labels", "decision"]

_ROUNDING = 1e-9  # of a difference of shares: 0.9 - 0.85 is a little more than 0.05


@dataclass(frozen=True)
class Gate:
    """From which side a gate bounds its figure, what must be there for it, and the figure if it is no column.

    It needs `examples` or `repetitions` of the evaluation, `labels` of the texts, a model whose `decision` is a label.
    """

    bound: Literal["at least", "at most"]
    needs: tuple[Need, ...] = ()
    figure: Callable[[Row], float | None] | None = None


def _accuracy_drop(row: Row) -> float | None:
    if row.accuracy is None or row.original_accuracy is None:
        return None
    return row.original_accuracy - row.accuracy


def _speedup_at_best(row: Row) -> float | None:
    """The upper end of its interval: a gate is missed beyond the noise alone."""
    return row.speedup if row.speedup_high is None else row.speedup_high


_ON_EXAMPLES = Gate("at least", ("examples", "decision"))


class Gates(Settings):
    """Bounds that a row must meet. Each field with a Gate is one, and that is all that the rest of the program knows.

    With `beyond_chance` figures that have an interval are judged at its better end. `against` is where an earlier
    result lies that a row must not be worse than, but for what `allow` says by column. See `optimizer.rows.verdict`.
    """

    agreement: Annotated[float | None, _ON_EXAMPLES] = Field(default=None, ge=0, le=1)
    agreement_low: Annotated[float | None, _ON_EXAMPLES] = Field(default=None, ge=0, le=1)
    size_ratio: Annotated[float | None, Gate("at most")] = Field(default=None, gt=0)
    speedup: Annotated[float | None, Gate("at least", ("repetitions",), _speedup_at_best)] = Field(default=None, gt=0)
    accuracy_drop: Annotated[float | None, Gate("at most", ("examples", "labels"), _accuracy_drop)] = Field(
        default=None, ge=-1, le=1
    )

    beyond_chance: bool = False
    against: str | None = None
    allow: dict[str, float | str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _allowed(self) -> Self:
        if self.allow and self.against is None:
            raise ValueError("allow is how much worse than an earlier run; write against: DIR too")
        return self

    @property
    def allowances(self) -> list[Allowance]:
        """`allow`, parsed; RecipeError for what is no bound."""
        return allowances.parse(allowances.words(self.allow), "gates.allow")

    def bounds(self) -> dict[str, float]:
        """The gates that are set, with their bounds."""
        return self.model_dump(exclude_none=True, include=set(GATES))

    def values(self) -> dict[str, Any]:
        """The keys of a recipe file; how they are judged only where that is set."""
        others = {"beyond_chance": self.beyond_chance, "against": self.against, "allow": self.allow}
        return self.bounds() | {key: value for key, value in others.items() if value}


GATES: dict[str, Gate] = {
    name: mark for name, field in Gates.model_fields.items() for mark in field.metadata if isinstance(mark, Gate)
}
"""The table: all gates by name."""


def missed_gates(gates: Mapping[str, float], row: Row) -> str | None:
    """Which gates a row misses and by how much, None if it meets them all."""
    misses = [miss for gate, bound in gates.items() if (miss := _miss(gate, bound, row))]
    return "; ".join(misses) or None


def shortfall(gate: str, bound: float, row: Row) -> float:
    """By how much a row misses a gate: at most 0 when it meets it, infinite without a figure that counts."""
    value = _figure(gate, row)
    if value is None or math.isnan(value) or _rests_on_random(gate, row):
        return math.inf
    excess = value - bound if GATES[gate].bound == "at most" else bound - value
    return excess if excess > _ROUNDING else min(excess, 0.0)


def _miss(gate: str, bound: float, row: Row) -> str | None:
    missed = shortfall(gate, bound, row)
    if missed <= 0:
        return None
    if _rests_on_random(gate, row):
        return f"{gate} rests on random inputs, which never satisfy the gate {bound:g}; write data.path=FILE"
    value = _figure(gate, row)
    if value is None:
        return f"{gate} was not measured, gate {bound:g}"
    at_best = " at best" if GATES[gate].figure is _speedup_at_best and value != row.speedup else ""
    return f"{gate} {value:.4f}{at_best} misses the gate {bound:g} by {missed:.4f}"


def _rests_on_random(gate: str, row: Row) -> bool:
    return "examples" in GATES[gate].needs and row.data == "random"


def _figure(gate: str, row: Row) -> float | None:
    figure = GATES[gate].figure
    value = getattr(row, gate) if figure is None else figure(row)
    return None if value is None else float(value)
