"""The texts that a search keeps aside: it chooses on the others, and reports on these.

The best of many trials looks better than it is on the texts that it was chosen by (the winner's curse): its figures on
texts that no trial has seen are unbiased. Both parts are runs like any other: `data.part` says which is measured.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optimizer.data.parts import FEWEST_HELD_OUT, held_out_count
from optimizer.errors import RecipeError
from optimizer.evaluation.inputs import reads_texts
from optimizer.rows.front import closeness, ends, quality
from optimizer.rows.row import Row
from optimizer.runs.plan import plan
from optimizer.runs.source import Sources
from optimizer.search.space import Search, itself


@dataclass(frozen=True)
class Parts:
    """The recipe, its search with it, on the texts to choose by; and on those kept aside, None where there are none."""

    searched: Mapping[str, Any]
    held_out: Mapping[str, Any] | None = None
    why_not: str | None = None


def parts(recipe: Mapping[str, Any], goal: Search, sources: Sources) -> Parts:
    """A search's recipe on the two parts of its texts; `why_not` is said where they cannot be parted.

    Of both parts the same texts are left to calibrate on, so that both make the same artifact. On those kept aside a
    gate is missed beyond chance alone: they are fewer, and what was chosen at the gate would miss it every other time.
    Raises RecipeError for a recipe that names a part itself, and what `plan` raises.
    """
    base = itself(recipe, goal)
    if base.data.part is not None:
        raise RecipeError("data.part: a search parts its texts itself; write ~data.part and ~data.held_out, or ~search")
    if base.gates.against is not None:
        raise RecipeError("gates.against: a search is held to no earlier run; write gates of its own in place of it")
    if not goal.holdout or base.evaluation.examples == 0:
        return Parts(recipe)
    source = plan(base, sources).source
    checkpoint, different = source.checkpoint, source.different
    if not reads_texts(checkpoint.directory, checkpoint.task, checkpoint.model):
        return Parts(recipe, why_not="this model is asked no texts, so none are kept aside")
    count = held_out_count(different, goal.holdout)
    if count is None:
        return Parts(
            recipe,
            why_not=f"{different} texts are too few to keep {max(FEWEST_HELD_OUT, round(goal.holdout * different))} "
            "aside: it chooses and reports on the same ones, which flatters what it chooses",
        )
    gates = {**(recipe.get("gates") or {}), "beyond_chance": True}
    return Parts(_on(recipe, "searched", count), {**_on(recipe, "held_out", count), "gates": gates})


def told(chosen: Row, row: Row) -> str:
    """The figures of the chosen run on the texts kept aside, beside those that it was chosen by, in one line."""
    if row.status == "failed":
        return f"failed on the texts kept aside: {row.error}"
    figures = [f"{closeness(row)} {quality(row):.4f}"] if quality(row) is not None else []
    low, high = ends(row)
    if figures and low is not None and high is not None:
        figures[-1] += f" ({low:.4f} to {high:.4f})"
    if quality(chosen) is not None:
        figures.append(f"{quality(chosen):.4f} on those it was chosen by")
    missed = f"; beyond chance, {row.error}: ask for more than you need" if row.status == "rejected" else ""
    return f"on {row.examples} {row.counted or 'texts'} kept aside, unbiased: {', '.join(figures)}{missed}"


def _on(recipe: Mapping[str, Any], part: str, count: int) -> dict[str, Any]:
    return {**recipe, "data": {**(recipe.get("data") or {}), "part": part, "held_out": count}}
