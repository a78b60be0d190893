"""A search in place of one run: the best settings that still meet the recipe's gates, found by trying runs."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from optimizer.errors import RecipeError, install
from optimizer.recipe import Recipe
from optimizer.rows.row import Row
from optimizer.runs.source import Sources
from optimizer.search import bisect, gating, grid, holdout, trials
from optimizer.search.space import Range, Search, changed, grid_of, settings

__all__ = ["Range", "Search", "search", "settings"]


def search(
    recipe: Mapping[str, Any],
    run: Callable[[list[Recipe]], list[Row]],
    out: Path,
    say: Callable[[str], None],
    at_once: int = 1,
    *,
    force: bool = False,
) -> list[Row]:
    """Try `search.trials` runs of a recipe that still holds its key `search`; the rows, best first, each run once.

    Before them comes that of the best on the texts kept aside by `search.holdout`, where there are such and it is ok.

    `run` makes ordinary runs, `at_once` of them in a call and no two alike, and returns a row for each in the order
    given; the gates are the search's constraints. What has been tried is kept in `out`/search, and a second call goes
    on from there, with new trials in place of those that failed; `force` begins anew. With `at_once` 1 the same seed
    and the same rows give the same trials.
    Raises RecipeError, before the first run, for whatever `settings` refuses, for a missing Optuna, and when another
    process is at this search.
    """
    goal = settings(recipe)
    sources = Sources()
    recipe = gating.fitted(recipe, goal, say, sources)
    parts = holdout.parts(recipe, goal, sources)
    if parts.why_not:
        say(f"search: {parts.why_not}")
    ranked = trials.search(parts.searched, goal, _proposer(recipe, goal, say), run, out, say, at_once, force)
    rows = trials.rows(ranked)
    if parts.held_out is None or rows[0].status != "ok":
        return rows
    (final,) = run([changed(parts.held_out, trials.rounded(ranked[0]))])
    say(f"search: {final.run_id}: {holdout.told(rows[0], final)}")
    return [final, *rows]


def _proposer(recipe: Mapping[str, Any], goal: Search, say: Callable[[str], None]) -> trials.Proposer:
    if goal.by == "bisect":
        return bisect.propose
    if goal.by != "tpe":
        found = grid_of(recipe, goal)
        for line in found.left_out:
            say(f"search: left out: {line}")
        return (grid.proposer if goal.by == "grid" else grid.in_turns)(found.combinations)
    try:
        from optimizer.search import tpe
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise RecipeError(f"search: needs Optuna; write {install('search')}") from None
    return tpe.propose
