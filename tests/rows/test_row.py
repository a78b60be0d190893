"""The row: every column in a group, stored values of other releases, what counts as no row."""

from typing import Any, get_args

import pytest

from optimizer.rows.row import COLUMNS, Group, Row, columns, rank


def test_every_column_is_in_one_group_and_groups_keep_the_order() -> None:
    groups = get_args(Group)
    assert sorted(column for group in groups for column in columns(group)) == sorted(COLUMNS)
    assert columns(*groups) == COLUMNS
    assert columns("memory", "size") == (
        "artifact_bytes",
        "size_ratio",
        "bits_per_parameter",
        "sparsity",
        "peak_memory_mb",
        "untouched_ratio",
    )


def test_a_row_stored_before_a_column_came_has_none_there() -> None:
    row = Row.of({"run_id": "a-1", "status": "ok", "agreement": 0.5})
    assert row == Row(run_id="a-1", status="ok", agreement=0.5)
    assert tuple(Row(run_id="a-1", status="ok").values()) == COLUMNS


def test_a_column_of_a_later_release_is_kept_and_stored_again() -> None:
    row = Row.of({"run_id": "a-1", "status": "ok", "joules": 3.5})
    assert row
    assert row.with_figures({"agreement": 0.5}).values()["joules"] == 3.5


@pytest.mark.parametrize("values", [{}, {"run_id": "a-1"}, {"status": "ok"}, {"run_id": "a-1", "status": "odd"}])
def test_what_has_no_id_or_no_status_is_no_row(values: dict[str, Any]) -> None:
    assert Row.of(values) is None


def test_good_rows_rank_before_rejected_before_failed_and_the_smaller_first() -> None:
    def row(run_id: str, status: Any, ratio: float | None) -> Row:
        return Row(run_id=run_id, status=status, size_ratio=ratio)

    ranked = [row("b", "ok", 0.1), row("c", "ok", 0.2), row("a", "ok", None), row("d", "rejected", 0.1)]
    ranked.append(row("e", "failed", float("nan")))
    mixed = ranked[::-1]
    assert sorted(mixed, key=rank) == ranked


def test_a_run_that_calibrates_nothing_says_so_by_nothing() -> None:
    row = Row.of({"run_id": "a-1", "status": "ok", "threads": 2})
    assert row
    assert (row.processor, row.calibration_examples, row.calibration_fingerprint) == (None, None, None)
