"""Which result of one place is to be held against which of another."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple

from optimizer.report.differences import settings_of
from optimizer.rows.found import RECIPE, Result


class Pairs(NamedTuple):
    """Those that belong together, and what is only in one of the two places."""

    both: list[tuple[Result, Result]]
    only_first: list[Result]
    only_second: list[Result]


def pair(first: Sequence[Result], second: Sequence[Result]) -> Pairs:
    """The two where each place has one; else those of one run's id, then of one recipe's settings, then of one recipe.

    Two results are paired by what no other result on either side has too.
    """
    if len(first) == len(second) == 1:
        return Pairs([(first[0], second[0])], [], [])
    both: list[tuple[Result, Result]] = []
    left, right = list(first), list(second)
    for key in _KEYS:
        found = _unique(left, key), _unique(right, key)
        for name in found[0].keys() & found[1].keys():
            both.append((found[0][name], found[1][name]))
            left.remove(found[0][name])
            right.remove(found[1][name])
    both.sort(key=lambda results: (results[0].row.created_at or "", results[0].row.run_id))
    return Pairs(both, left, right)


def recipe_of(result: Result) -> Mapping[str, str]:
    """The settings of a result's recipe by dotted name; none where there is no recipe that can be read."""
    return (None if result.folder is None else settings_of(result.folder / RECIPE)) or {}


def _unique(results: Sequence[Result], key: Callable[[Result], Hashable]) -> dict[Hashable, Result]:
    gathered: dict[Hashable, list[Result]] = defaultdict(list)
    for result in results:
        gathered[key(result)].append(result)
    return {name: group[0] for name, group in gathered.items() if len(group) == 1}


def _by_settings(result: Result) -> Hashable:
    made = {name: text for name, text in recipe_of(result).items() if name.startswith(("stages", "engine", "format"))}
    return _by_recipe(result), tuple(sorted(made.items())), result.row.pruning_amount, result.row.threshold


def _by_recipe(result: Result) -> Hashable:
    row = result.row
    return row.model, row.recipe, row.data_part


_KEYS: tuple[Callable[[Result], Hashable], ...] = (lambda result: result.row.run_id, _by_settings, _by_recipe)
