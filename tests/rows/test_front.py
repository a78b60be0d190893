"""The front: what nothing else beats, in each group, and what has no place on it."""

import math
from typing import Any

import pytest

from optimizer.rows.front import front
from optimizer.rows.row import Row


def row(run_id: str, size: int | None, agreement: float | None, **figures: Any) -> Row:
    measured = {"run_id": run_id, "status": "ok", "artifact_bytes": size, "agreement": agreement}
    return Row(**{"model": "a", "original_bytes": 100, "data": "texts"} | measured | figures)


def names(rows: list[Row]) -> list[str]:
    return [found.run_id for found in front(rows)]


def test_no_row_and_one_row() -> None:
    assert names([]) == []
    assert names([row("a", 10, 0.0)]) == ["a"]


def test_smallest_first_and_without_what_is_beaten() -> None:
    assert names([row("c", 30, 1.0), row("b", 20, 0.8), row("beaten", 25, 0.7), row("a", 10, 0.5)]) == ["a", "b", "c"]


def test_of_one_size_the_closer_and_of_one_closeness_the_smaller() -> None:
    assert names([row("a", 10, 0.5), row("b", 10, 0.6)]) == ["b"]
    assert names([row("a", 20, 0.5), row("b", 10, 0.5)]) == ["b"]


def test_of_equal_points_one() -> None:
    assert names([row("b", 10, 0.5), row("a", 10, 0.5)]) == ["a"]


@pytest.mark.parametrize("closeness", [math.nan, math.inf, -math.inf, None])
def test_a_closeness_that_is_no_finite_number_is_on_none_and_beats_nothing(closeness: float | None) -> None:
    assert names([row("bad", 1, closeness), row("a", 10, 0.5), row("b", 20, 0.6)]) == ["a", "b"]


@pytest.mark.parametrize(
    "other", [{"artifact_bytes": None}, {"status": "rejected"}, {"status": "failed", "artifact_bytes": None}]
)
def test_rows_that_are_not_good_or_have_no_size_are_on_none(other: dict[str, Any]) -> None:
    assert names([row("bad", 1, 1.0, **other), row("a", 10, 0.5)]) == ["a"]


def test_cosine_similarity_counts_where_there_is_no_agreement() -> None:
    rows = [row("a", 10, None, cosine_similarity=0.5), row("b", 20, None, cosine_similarity=0.4)]
    assert names(rows) == ["a"]


@pytest.mark.parametrize("other", [{"model": "b"}, {"original_bytes": 99}, {"data": "builtin"}, {"examples": 5}])
def test_each_original_and_its_texts_have_a_front_of_their_own(other: dict[str, Any]) -> None:
    assert names([row("large", 20, 0.5, **other), row("small", 10, 0.9)]) == ["large", "small"]
