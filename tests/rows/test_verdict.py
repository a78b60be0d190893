"""Verdicts: at the figures, or at what chance allows of them."""

from typing import Any

import pytest

from optimizer.errors import RecipeError
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
    met = judged(row(**CLOSE), lenient)
    assert (met.status, met.error) == ("ok", None)
    assert met.gates == [{"gate": gate, "bound": 0.99, "missed": None}]
    far = judged(row(**CLOSE | {"agreement_high": 0.989}), lenient)
    assert (far.status, far.agreement) == ("rejected", 0.985)
    assert far.error == f"{gate} 0.9890 misses the gate 0.99 by 0.0010"


def test_a_loss_of_accuracy_is_judged_at_its_least_and_the_accuracy_as_it_is() -> None:
    figures = {"accuracy": 0.93, "original_accuracy": 0.95, "accuracy_drop_low": 0.004, "accuracy_drop_high": 0.036}
    assert judged(row(**figures), Gates(accuracy_drop=0.01)).status == "rejected"
    assert judged(row(**figures), Gates(accuracy_drop=0.01, beyond_chance=True)).status == "ok"
    missed = judged(row(**figures), Gates(accuracy_drop=0.003, accuracy=0.94, beyond_chance=True))
    assert missed.error == (
        "accuracy_drop 0.0040 misses the gate 0.003 by 0.0010; accuracy 0.9300 misses the gate 0.94 by 0.0100"
    )
    assert missed.original_accuracy == 0.95
    assert judged(row(**figures), Gates(accuracy_drop_high=0.01, beyond_chance=True)).status == "ok"


def test_embeddings_and_scores_are_held_to_an_earlier_run_too() -> None:
    earlier = row(run_id="old-1", neighbour_agreement=0.98, cosine_similarity=0.999)
    close = {"neighbour_agreement": 0.95, "neighbour_agreement_low": 0.9, "neighbour_agreement_high": 0.985}
    gates = Gates(against="somewhere")
    assert judged(row(cosine_similarity=0.999, **close), gates, earlier).status == "ok"
    far = judged(row(cosine_similarity=0.999, **close | {"neighbour_agreement_high": 0.97}), gates, earlier)
    assert far.error is not None
    assert far.error.startswith("against old-1: neighbour_agreement 0.98 to 0.97: ")
    scores = judged(row(spearman=0.9), gates, row(run_id="old-1", spearman=0.95))
    assert scores.error == "against old-1: spearman 0.95 to 0.9: changed by -0.05, allowed +0"


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


EARLIER = row(run_id="old-1", size_ratio=0.3, speedup=2.0, **CLOSE)


def against(figures: dict[str, Any], **allow: float | str) -> Row:
    return judged(row(**figures), Gates(against="somewhere", allow=allow), EARLIER)


def test_a_run_may_not_be_worse_than_an_earlier_one_beyond_chance() -> None:
    same = {"size_ratio": 0.3, "speedup": 2.0, **CLOSE}
    assert against(same).status == "ok"
    assert against(same | {"agreement": 0.98, "speedup": 1.9, "speedup_low": 1.7, "speedup_high": 2.1}).status == "ok"
    larger = against(same | {"size_ratio": 0.31})
    assert larger.error == "against old-1: size_ratio 0.3 to 0.31: changed by +0.01, allowed +0"
    assert larger.status == "rejected"
    worse = against(same | {"agreement": 0.9, "agreement_high": 0.92, "speedup": 1.0, "speedup_high": 1.1})
    assert worse.error is not None
    assert [part.split()[2] for part in worse.error.split("; ")] == ["agreement", "speedup"]
    assert worse.agreement == 0.9, "the row keeps its own figures"


def test_what_is_allowed_goes_by_the_figure_itself() -> None:
    same = {"size_ratio": 0.31, "speedup": 2.0, **CLOSE | {"agreement": 0.98}}
    assert against(same, size_ratio=0.01).status == "ok"
    assert against(same, size_ratio="+5%", agreement=-0.01).status == "ok"
    missed = against(same, size_ratio=0.01, agreement=-0.002)
    assert missed.error == "against old-1: agreement 0.985 to 0.98: changed by -0.005, allowed -0.002"
    assert against({}, accuracy=-0.01).error == "against old-1: accuracy was not measured on both sides, allowed -0.01"


def test_gates_of_both_kinds_are_all_told() -> None:
    gates = Gates(agreement=0.999, against="somewhere")
    found = judged(row(size_ratio=0.4, **CLOSE), gates, EARLIER)
    assert found.gates is not None
    assert [each["gate"] for each in found.gates] == [
        "agreement",
        "size_ratio against old-1",
        "agreement against old-1",
    ]
    assert [each["missed"] is None for each in found.gates] == [False, False, True]
    assert found.error == "; ".join(each["missed"] for each in found.gates if each["missed"])
    assert judged(row(), Gates()).gates is None


def test_what_is_allowed_is_checked_with_the_recipe() -> None:
    with pytest.raises(
        RecipeError, match=r"^gates: allow is how much worse than an earlier run; write against: DIR too"
    ):
        parse({"gates": {"allow": {"size_ratio": 0.1}}})
    with pytest.raises(RecipeError, match=r"^gates\.allow: unknown figure 'size'; "):
        parse({"gates": {"against": "x", "allow": {"size": 0.1}}})
    said = {"against": "x", "allow": {"size_ratio": 0.1}}
    assert parse({"gates": said}).values()["gates"] == said
