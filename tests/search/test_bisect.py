"""A search by halving: the least of one setting that meets the gates."""

from typing import Any

import pytest

from optimizer.errors import RecipeError
from optimizer.rows.row import Row
from optimizer.search import bisect, settings
from optimizer.search.space import Search
from optimizer.search.trials import Trial

KEY = "stages.quantize.bits_per_parameter"
RECIPE: dict[str, Any] = {
    "stages": {"quantize": {"allocate": "fisher", "bits_per_parameter": 2.5}},
    "data": {"path": "builtin"},
    "gates": {"agreement": 0.99},
    "search": {"minimize": "size_ratio", "by": "bisect", "ranges": {KEY: {"low": 1.0, "high": 6.0, "log": True}}},
}


def tried(enough: float, own: float = 2.5, **span: Any) -> list[float]:
    """All that is proposed where values from `enough` on meet the gates."""
    spans: Any = {KEY: {"low": 1.0, "high": 6.0, "log": True, **span}}
    goal = Search(minimize="size_ratio", by="bisect", ranges=spans)
    trials: list[Trial] = []
    while (values := bisect.propose(goal, {KEY: own}, trials, len(trials))) is not None:
        assert len(trials) < 30
        status = "ok" if values[KEY] >= enough else "rejected"
        trials.append(Trial(values, Row(run_id="a-1", status=status), values[KEY]))
    return [trial.values[KEY] for trial in trials]


@pytest.mark.parametrize("log", [True, False])
@pytest.mark.parametrize("enough", [1.0, 1.7, 2.5, 3.3, 5.9])
def test_it_ends_within_a_hundredth_of_the_least_that_meets_the_gates(enough: float, log: bool) -> None:
    values = tried(enough, log=log)
    assert values[0] == 2.5
    assert len(values) <= 11
    best = min(value for value in values if value >= enough)
    assert enough <= best <= enough * 1.011


def test_it_ends_where_nothing_does() -> None:
    values = tried(7.0)
    assert max(values) == values[-1] == 6.0
    assert len(values) <= 4


def test_it_begins_in_the_middle_where_the_recipes_own_value_is_out_of_range() -> None:
    assert tried(2.0, own=9.0)[0] == pytest.approx(6**0.5)


def test_while_one_runs_there_is_no_next() -> None:
    spans: Any = {KEY: {"low": 1.0, "high": 6.0}}
    goal = Search(minimize="size_ratio", by="bisect", ranges=spans)
    assert bisect.propose(goal, {KEY: 2.5}, [Trial({KEY: 2.5})], 1) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ranges": {KEY: [1.5, 2.5]}}, "bisect takes one range of numbers"),
        ({"ranges": {KEY: {"low": 1.0, "high": 3.0, "step": 0.5}}}, "bisect takes one range of numbers"),
        (
            {"ranges": {KEY: {"low": 1.0, "high": 3.0}, "stages.quantize.dead_zone": {"low": 0.0, "high": 0.5}}},
            "bisect takes one range of numbers",
        ),
    ],
)
def test_what_cannot_be_halved_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        settings({**RECIPE, "search": {**RECIPE["search"], **change}})


def test_it_goes_by_gates() -> None:
    with pytest.raises(RecipeError, match=r"there is none; write \+\+gates.agreement=0.99"):
        settings({**RECIPE, "gates": {}})
