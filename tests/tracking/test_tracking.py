"""Tracking: each run at its end, from whichever process made it; what cannot be tracked is said and fails nothing."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from command_line import one_line, rows

from optimizer import tracking
from optimizer.errors import PackageError, RecipeError
from optimizer.rows.row import Row
from optimizer.rows.store import run_directory, write_row
from optimizer.tracking import tracker
from optimizer.tracking.record import Record, record

WORDS = ["data.path=builtin", "evaluation.repetitions=0", "threads=1"]


class Shelf(ModuleType):
    """A tracker that keeps records in a list."""

    def __init__(self) -> None:
        super().__init__("shelf")
        self.kept: list[Record] = []
        self.broken = False

    def check(self) -> None:
        """Always there."""

    def keep(self, one: Record) -> str:
        """An address on the shelf."""
        if self.broken:
            raise ConnectionError("the shelf is gone\nfor good")
        self.kept.append(one)
        return f"shelf: {len(self.kept)}"


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Shelf:
    module = Shelf()
    monkeypatch.setitem(sys.modules, "shelf", module)
    monkeypatch.setitem(tracking.TRACKERS, "shelf", "shelf")
    return module


def test_each_run_is_kept_once_at_its_end(optimizer: Any, shelf: Shelf, tmp_path: Path, tiny_model: Any) -> None:
    words = [f"model.path={tiny_model('sequence-classification')}", *WORDS, "track=shelf"]
    sweep = ["-m", "recipe=pruned", "pruning_amount=0.2,0.4", "gates.size_ratio=0.3", *words]
    assert optimizer(*sweep)[0] == 1
    assert [one.status for one in shelf.kept] == ["rejected", "rejected"]
    found = {row["run_id"]: row for row in rows(tmp_path / "outputs")}
    assert {one.name for one in shelf.kept} == set(found)
    for number, one in enumerate(shelf.kept, start=1):
        row = found[one.name]
        assert row["tracked"] == f"shelf: {number}"
        assert one.figures["size_ratio"] == float(row["size_ratio"])
        assert one.parameters["stages.prune.amount"] == row["pruning_amount"]
        assert one.texts["address"] == str(tmp_path / "outputs" / row["artifact"])
        assert [path.name for path in one.files] == ["row.json", "recipe.yaml", "run.log"]
        assert one.plots["size_agreement"].startswith(b"\x89PNG")
    assert optimizer(*sweep)[0] == 1
    assert len(shelf.kept) == 2, "what was finished before has been kept"


def test_workers_keep_their_own_and_failed_runs_are_kept(optimizer: Any, shelf: Shelf, tiny_model: Any) -> None:
    words = [f"model.path={tiny_model('sequence-classification')}", "data.path=builtin", "evaluation=none", "threads=1"]
    spread = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "track=shelf"]
    code, _, _ = optimizer("-m", "recipe=pruned", "pruning_amount=0.1,0.2,0.3", *words, *spread)
    assert code == 0
    assert len({one.name for one in shelf.kept}) == 3


def test_a_tracker_that_fails_fails_no_run(optimizer: Any, shelf: Shelf, tmp_path: Path, tiny_model: Any) -> None:
    shelf.broken = True
    code, out, _ = optimizer(
        "recipe=fp16", f"model.path={tiny_model('sequence-classification')}", *WORDS, "track=shelf"
    )
    assert code == 0
    (row,) = rows(tmp_path / "outputs")
    assert row["status"] == "ok"
    assert row["tracked"] == "failed: the shelf is gone"
    assert f"{row['run_id']} could not be tracked: the shelf is gone" in out
    (log,) = (tmp_path / "outputs").glob("runs/*/run.log")
    assert "ConnectionError: the shelf is gone" in log.read_text()


def test_an_unknown_tracker_and_one_that_is_not_installed_are_one_line(
    optimizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = optimizer("track=mlfow", *WORDS)
    assert (code, one_line(err)) == (2, "optimizer: track: unknown tracker 'mlfow'; did you mean 'mlflow'?\n")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.delitem(sys.modules, "optimizer.tracking.mlflow", raising=False)
    with pytest.raises(PackageError, match=r"^track: needs the package mlflow; run: pip install 'transf.*\[mlflow\]'"):
        tracker("mlflow")
    assert tracker(None) is None
    assert not (tmp_path / "outputs").exists()
    with pytest.raises(RecipeError):
        tracker("")


def test_figures_are_finite_numbers_and_texts_are_texts(tmp_path: Path) -> None:
    figures: dict[str, Any] = {
        "agreement": 0.9,
        "perplexity": float("inf"),
        "latency_grid": [{"length": 1}],
        "recipe": "balanced",
    }
    row = Row(run_id="a-1", status="ok", created_at="2026-01-01", **figures)
    write_row(tmp_path, row)
    (run_directory(tmp_path, "a-1") / "recipe.yaml").write_text("name: x\n")
    one = record(tmp_path, row)
    assert one.figures["agreement"] == 0.9
    assert not {"perplexity", "latency_grid", "recipe"} & one.figures.keys()
    assert one.texts["recipe"] == "balanced"
    assert "address" not in one.texts
    assert one.parameters["name"] == "x"
