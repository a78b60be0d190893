"""The gates of a search on a model of another kind than its recipe had in mind."""

from collections.abc import Callable, Mapping
from typing import Any

from optimizer.rows.gates import GATES
from optimizer.runs.plan import OF_TEXTS, lacking
from optimizer.runs.source import Sources
from optimizer.search.space import Search, itself


def fitted(
    recipe: Mapping[str, Any], goal: Search, say: Callable[[str], None], sources: Sources | None = None
) -> Mapping[str, Any]:
    """The recipe with `search.otherwise` in place of gates whose figures its model has not; `say` is told which.

    Nothing is put in place where another of its gates is on the answers. Raises an OptimizerError when the model or the
    texts cannot be read.
    """
    if not goal.otherwise:
        return recipe
    base = itself(recipe, goal)
    source = (sources or Sources()).of(base.model, base.data, calibrated=base.calibrated)

    def has(gate: str) -> bool:
        return lacking(gate, source) is None

    bounds = base.gates.bounds()
    gone = [gate for gate in bounds if lacking(gate, source) not in (None, *OF_TEXTS)]
    kept = {gate: bound for gate, bound in bounds.items() if gate not in gone}
    if not gone:
        return recipe
    judged = {key: value for key, value in base.gates.values().items() if key not in bounds}
    if any("examples" in GATES[gate].needs for gate in kept):
        say(f"search: this model has no {' and no '.join(gone)}: left out, its gates are {_words(kept)}")
        return {**recipe, "gates": kept | judged}
    taken = {gate: bound for gate, bound in goal.otherwise.items() if has(gate)}
    if not taken:
        return recipe
    say(f"search: this model has no {' and no '.join(gone)}: its gate is {_words(taken)}, by search.otherwise")
    return {**recipe, "gates": kept | taken | judged}


def _words(gates: Mapping[str, float | None]) -> str:
    return " and ".join(f"{gate} {bound:g}" for gate, bound in gates.items())
