"""How many texts it takes to show what a gate asks for: Wilson's interval, solved for the number of trials."""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

_SHARES = ("agreement", "neighbour_agreement", "sentence_agreement")  # of texts, with Wilson's interval
_LOW = "_low"


def examples_for(bound: float, share: float = 1.0, confidence: float = 0.95) -> int | None:
    """The fewest examples by which Wilson's lower end reaches `bound` where this share of them agrees.

    None where no number does: the share is not above the bound. With every one agreeing it is the least that any
    artifact needs. From |share - bound| = z sqrt(bound (1 - bound) / n), of which the interval's ends are the roots.
    """
    if share <= bound:
        return None
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    return max(1, math.ceil(z**2 * bound * (1 - bound) / (share - bound) ** 2))


def too_few(bounds: Mapping[str, float], examples: int) -> list[str]:
    """A line for each gate that so many examples cannot show with its interval, however much agrees."""
    lines = []
    for gate, bound in bounds.items():
        needed = examples_for(bound) if _is_share(gate) else None
        if needed is not None and needed > examples:
            and_so = ", so it will be missed" if gate.endswith(_LOW) else ""
            lines.append(
                f"gates.{gate}: {examples} texts are too few to show {bound:g} with its interval{and_so}: it takes "
                f"{needed} or more, and all of them answered alike"
            )
    return lines


def would_show(gates: Sequence[Mapping[str, Any]], figures: Mapping[str, Any]) -> list[str]:
    """For each gate on a lower end that is missed by too few examples alone: how many it would take.

    `gates` are a row's, `figures` its values. Words and tokens have another interval, by the text that they are of.
    """
    lines = []
    by_text = figures.get("counted") in ("words", "tokens")
    for each in gates:
        gate, bound = str(each["gate"]), each["bound"]
        known = gate.endswith(_LOW) and _is_share(gate) and not (by_text and gate == f"agreement{_LOW}")
        share = figures.get(gate.removesuffix(_LOW)) if known else None
        needed = examples_for(bound, share) if share is not None and each["missed"] else None
        if needed is not None:
            lines.append(f"{gate} {bound:g} takes about {needed} texts at {gate.removesuffix(_LOW)} {share:.4f}")
    return lines


def _is_share(gate: str) -> bool:
    return gate.removesuffix(_LOW) in _SHARES
