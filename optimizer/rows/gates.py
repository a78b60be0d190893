"""Gates: bounds that the figures of a row must meet."""

import math
from collections.abc import Mapping

from pydantic import Field

from optimizer.rows.store import Row
from optimizer.settings import Settings

_ROUNDING = 1e-9  # of a difference of shares: 0.9 - 0.85 is a little more than 0.05


class Gates(Settings):
    """Bounds that a row must meet: agreement, agreement_low and speedup from below, the others from above."""

    agreement: float | None = Field(default=None, ge=0, le=1)
    agreement_low: float | None = Field(default=None, ge=0, le=1)
    size_ratio: float | None = Field(default=None, gt=0)
    speedup: float | None = Field(default=None, gt=0)
    accuracy_drop: float | None = Field(default=None, ge=-1, le=1)


def missed_gates(gates: Mapping[str, float], row: Row) -> str | None:
    """Which gates a row misses and by how much, None if it meets them all."""
    misses = [miss for gate, bound in gates.items() if (miss := _miss(gate, bound, row))]
    return "; ".join(misses) or None


def shortfall(gate: str, bound: float, row: Row) -> float:
    """By how much a row misses a gate: at most 0 when it meets it, infinite without a figure that counts."""
    value = _figure(gate, row)
    if value is None or math.isnan(value) or _rests_on_random(gate, row):
        return math.inf
    excess = value - bound if gate in ("size_ratio", "accuracy_drop") else bound - value
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
    return f"{gate} {value:.4f} misses the gate {bound:g} by {missed:.4f}"


def _rests_on_random(gate: str, row: Row) -> bool:
    return gate.startswith("agreement") and row["data"] == "random"


def _figure(gate: str, row: Row) -> float | None:
    if gate == "accuracy_drop":
        if row["accuracy"] is None or row["original_accuracy"] is None:
            return None
        return float(row["original_accuracy"] - row["accuracy"])
    value = row[gate]
    return None if value is None else float(value)
