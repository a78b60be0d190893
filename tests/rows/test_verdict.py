"""Verdicts: at the figures, or at what chance allows of them."""

from typing import Any

import pytest

from optimizer.recipe import parse
from optimizer.rows.gates import Gates
from optimizer.rows.row import Row
from optimizer.rows.verdict import at_best, judged

CLOSE = {"agreement": 0.985, "agreement_low": 0.972, "agreement_high": 0.992}


def row(**figures: Any) -> Row:
    return Row(**{"run_id": "a-1", "status": "ok", "data": "texts"} | figures)


@pytest.mark.parametrize("gate", ["agreement", "agreement_low"])
def test_what_chance_may_have_done_is_no_miss_beyond_chance(gate: str) -> None:
    plain, lenient = Gates(**{gate: 0.99}), Gates(**{gate: 0.99, "beyond_chance": True})
    assert judged(row(**CLOSE), plain).status == "rejected"
    assert judged(row(**CLOSE), lenient) == row(**CLOSE)
    far = judged(row(**CLOSE | {"agreement_high": 0.989}), lenient)
    assert (far.status, far.agreement) == ("rejected", 0.985)
    assert far.error == f"{gate} 0.9890 misses the gate 0.99 by 0.0010"


def test_what_has_no_interval_is_judged_as_it_is() -> None:
    gates = Gates(size_ratio=0.5, agreement=0.9, beyond_chance=True)
    assert judged(row(size_ratio=0.6, agreement=0.9), gates).error == "size_ratio 0.6000 misses the gate 0.5 by 0.1000"
    assert judged(row(size_ratio=0.4), gates).error == "agreement was not measured, gate 0.9"
    assert at_best(row()) == row()


def test_it_is_said_in_the_recipe_only_where_it_is_set() -> None:
    assert parse({"gates": {"agreement": 0.9}}).values()["gates"] == {"agreement": 0.9}
    said = {"agreement": 0.9, "beyond_chance": True}
    assert parse({"gates": said}).values()["gates"] == said
    assert parse(parse({"gates": said}).values()).gates.beyond_chance
