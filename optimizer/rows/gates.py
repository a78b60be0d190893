"""Gates: bounds that the figures of a row must meet; the table of them all, made from that of the figures."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import Field, create_model, model_validator

from optimizer.rows import allowances
from optimizer.rows.allowances import Allowance
from optimizer.rows.figure import CORRELATION, Figure, Need
from optimizer.rows.row import FIGURES, Row, columns
from optimizer.settings import Settings

_ROUNDING = 1e-9  # of a difference of shares: 0.9 - 0.85 is a little more than 0.05


@dataclass(frozen=True)
class Gate:
    """From which side a gate bounds its figure, within which range, and what must be there for it.

    The figure is that of `column`, or, where `worse` is set, by how much it is worse than the original's.
    """

    column: str
    bound: Literal["at least", "at most"]
    range: Mapping[str, float]
    needs: tuple[Need, ...] = ()
    at_best: str | None = None
    worse: bool = False

    def figure(self, row: Row) -> float | None:
        """The figure of a row that the gate goes by; None if it was not measured."""
        value = None if self.at_best is None else getattr(row, self.at_best)
        value = getattr(row, self.column) if value is None else value
        if not self.worse or value is None:
            return None if value is None else float(value)
        original = getattr(row, f"original_{self.column}")
        if original is None:
            return None
        return float(original - value if FIGURES[self.column].better == "more" else value - original)


def _gates() -> dict[str, Gate]:
    """Every figure that has a better side, and, where the original has the same figure, the loss of it."""
    direct = {
        name: Gate(name, "at least" if each.better == "more" else "at most", each.range, each.needs, each.at_best)
        for name, each in FIGURES.items()
        if each.better is not None and each.gated
    }
    beside = [name for name in columns("quality") if name in direct and f"original_{name}" in columns("quality")]
    # Those of the first releases in their order, so that the recipe that a run stores is the same.
    first = {name: direct[name] for name in ("agreement", "agreement_low", "size_ratio", "speedup")}
    losses = {_loss(name, FIGURES[name]): Gate(name, "at most", {}, FIGURES[name].needs, worse=True) for name in beside}
    return first | {"accuracy_drop": losses["accuracy_drop"]} | direct | losses


def _loss(name: str, figure: Figure) -> str:
    return f"{name}_drop" if figure.better == "more" else f"{name}_rise"


GATES: dict[str, Gate] = _gates()
"""The table: all gates by name."""


def _fields() -> dict[str, Any]:
    """Each gate as a field; the loss of a figure that is a share is between -1 and 1."""
    ends: dict[str, Any] = {
        name: CORRELATION if gate.worse and _is_share(gate) else gate.range for name, gate in GATES.items()
    }
    return {name: (float | None, Field(default=None, **ends[name])) for name in GATES}


def _is_share(gate: Gate) -> bool:
    return FIGURES[gate.column].range.get("ge") == 0 and "le" in FIGURES[gate.column].range


Bounds: Any = create_model("Bounds", __base__=Settings, **_fields())
"""A bound, or None, for each gate of GATES."""


class Gates(Bounds):  # type: ignore[misc]
    """Bounds that a row must meet; each inherited field is a gate of GATES.

    With `beyond_chance` figures that have an interval are judged at its better end. `against` is where an earlier
    result lies that a row must not be worse than, but for what `allow` says by column. See `optimizer.rows.verdict`.
    """

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
        bounds: dict[str, float] = self.model_dump(exclude_none=True, include=set(GATES))
        return bounds

    def values(self) -> dict[str, Any]:
        """The keys of a recipe file; how they are judged only where that is set."""
        others = {"beyond_chance": self.beyond_chance, "against": self.against, "allow": self.allow}
        return self.bounds() | {key: value for key, value in others.items() if value}


def missed_gates(gates: Mapping[str, float], row: Row) -> str | None:
    """Which gates a row misses and by how much, None if it meets them all."""
    misses = [miss for gate, bound in gates.items() if (miss := _miss(gate, bound, row))]
    return "; ".join(misses) or None


def shortfall(gate: str, bound: float, row: Row) -> float:
    """By how much a row misses a gate: at most 0 when it meets it, infinite without a figure that counts."""
    value = GATES[gate].figure(row)
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
    value = GATES[gate].figure(row)
    if value is None:
        return f"{gate} was not measured, gate {bound:g}"
    at_best = " at best" if GATES[gate].at_best and value != getattr(row, GATES[gate].column) else ""
    return f"{gate} {value:.4f}{at_best} misses the gate {bound:g} by {missed:.4f}"


def _rests_on_random(gate: str, row: Row) -> bool:
    return "examples" in GATES[gate].needs and row.data == "random"
