"""The verdict on a row: ok, or rejected by a gate, at its figures or at what chance allows of them."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from optimizer.rows.allowances import Allowance
from optimizer.rows.front import CLOSENESS
from optimizer.rows.gates import GATES, Gates, missed_gates
from optimizer.rows.row import COLUMNS, Row

_AGAINST = ("size_ratio", *CLOSENESS, "speedup")


def judged(row: Row, gates: Gates, earlier: Row | None = None) -> Row:
    """The row with its status, its error where it misses a gate, and `gates`: each with what it was missed by.

    `earlier` is the row that the gates are against.
    """
    verdicts = [*_absolute(row, gates), *(_relative(row, gates, earlier) if earlier else [])]
    missed = "; ".join(each["missed"] for each in verdicts if each["missed"]) or None
    return replace(row, status="rejected" if missed else "ok", error=missed, gates=verdicts or None)


def subject(row: Row, gates: Gates) -> Row:
    """What is held to the gates: the row, or with `beyond_chance` the row at its best."""
    return at_best(row) if gates.beyond_chance else row


def at_best(row: Row) -> Row:
    """The row with every figure that has an interval, and either end of one, at the better end of its interval.

    Of a loss the original's figure is what makes it that end: the artifact's own has no interval here.
    """
    better = {gate: getattr(row, end) for gate in GATES if gate in COLUMNS and (end := _better_end(gate)) in COLUMNS}
    for gate, loss in GATES.items():
        least = getattr(row, f"{gate}_low", None) if loss.worse else None
        if least is not None:
            better[f"original_{loss.column}"] = getattr(row, loss.column) + least
    return replace(row, **{column: value for column, value in better.items() if value is not None})


def _absolute(row: Row, gates: Gates) -> Iterator[dict[str, Any]]:
    held = subject(row, gates)
    for gate, bound in gates.bounds().items():
        yield {"gate": gate, "bound": bound, "missed": missed_gates({gate: bound}, held)}


def _relative(row: Row, gates: Gates, earlier: Row) -> Iterator[dict[str, Any]]:
    """What both rows have must not be worse beyond chance; what is allowed goes by the figures themselves."""
    given = gates.allowances
    for allowance in given:
        yield _held(allowance, earlier, row)
    columns = set(_AGAINST) - {allowance.column for allowance in given}
    best = at_best(row)
    for column in sorted(columns, key=_AGAINST.index):
        if getattr(row, column) is not None and getattr(earlier, column) is not None:
            yield _held(Allowance(column, 0.0), earlier, best)


def _held(allowance: Allowance, earlier: Row, row: Row) -> dict[str, Any]:
    miss = allowance.miss(earlier, row)
    missed = None if miss is None else f"against {earlier.run_id}: {miss}"
    return {"gate": f"{allowance.column} against {earlier.run_id}", "bound": str(allowance), "missed": missed}


def _better_end(gate: str) -> str:
    stem = gate.removesuffix("_low").removesuffix("_high")
    return f"{stem}_{'high' if GATES[gate].bound == 'at least' else 'low'}"
