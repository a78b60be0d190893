"""The verdict on a row: ok, or rejected by a gate, at its figures or at what chance allows of them."""

from dataclasses import replace

from optimizer.rows.gates import GATES, Gates, missed_gates
from optimizer.rows.row import COLUMNS, Row


def judged(row: Row, gates: Gates) -> Row:
    """The row with its status, and its error where it misses a gate."""
    missed = missed_gates(gates.bounds(), subject(row, gates))
    return replace(row, status="rejected" if missed else "ok", error=missed)


def subject(row: Row, gates: Gates) -> Row:
    """What is held to the gates: the row, or with `beyond_chance` the row at its best."""
    return at_best(row) if gates.beyond_chance else row


def at_best(row: Row) -> Row:
    """The row with every figure that has an interval, and the lower end of one, at the better end of its interval."""
    better = {gate: getattr(row, end) for gate in GATES if gate in COLUMNS and (end := _better_end(gate)) in COLUMNS}
    return replace(row, **{gate: value for gate, value in better.items() if value is not None})


def _better_end(gate: str) -> str:
    stem = gate.removesuffix("_low").removesuffix("_high")
    return f"{stem}_{'high' if GATES[gate].bound == 'at least' else 'low'}"
