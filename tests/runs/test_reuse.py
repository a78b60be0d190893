"""Artifacts that are found again: by whoever made them, as long as they are there, whatever became of the index."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from optimizer.recipe import parse
from optimizer.rows.row import Row
from optimizer.rows.store import LOG_FILE, run_directory
from optimizer.runs import reuse
from optimizer.runs.sweep import sweep


@pytest.fixture
def make(tiny_model, tmp_path: Path) -> Any:
    model = {"path": str(tiny_model("sequence-classification"))}

    def make(seed: int, amount: float = 0.3, **options: Any) -> Row:
        """A run of its own for each seed, whose artifact is that of all others with the same amount."""
        stages = {"prune": {"amount": amount}}
        values = {"model": model, "stages": stages, "evaluation": {"examples": 0, "repetitions": 0}, "seed": seed}
        (row,) = sweep([parse(values)], tmp_path, **options)
        assert row.status == "ok", row.error
        return row

    return make


def taken_from(out: Path, row: Row) -> str | None:
    """The run whose artifact a run took over, by its log."""
    log = (run_directory(out, row.run_id) / LOG_FILE).read_text()
    return log.partition("the artifact is that of ")[2].strip() or None


def test_only_the_manifests_of_the_same_making_are_read(make, tmp_path, monkeypatch) -> None:
    others = [make(0, amount) for amount in (0.1, 0.2, 0.4)]
    first = make(0)
    read: list[str] = []
    manifest = reuse.read_manifest

    def noted(directory: Path) -> Any:
        read.append(directory.parent.name)
        return manifest(directory)

    monkeypatch.setattr(reuse, "read_manifest", noted)
    second = make(1)
    assert taken_from(tmp_path, second) == first.run_id
    assert first.run_id in read
    assert not {row.run_id for row in others} & set(read)


def test_when_one_artifact_goes_another_of_the_same_is_found(make, tmp_path) -> None:
    first, second = make(0), make(1)
    shutil.rmtree(run_directory(tmp_path, first.run_id))
    assert taken_from(tmp_path, make(2)) == second.run_id


def test_what_was_not_kept_is_not_looked_for_until_it_is_there_again(make, tmp_path) -> None:
    first = make(0, keep="none")
    assert first.artifact is None
    second = make(1)
    assert taken_from(tmp_path, second) is None
    assert taken_from(tmp_path, make(0)) == second.run_id


@pytest.mark.parametrize("damage", ["removed", "a file", "nonsense in it"])
def test_an_index_that_is_damaged_or_gone_does_no_harm(make, tmp_path, damage: str) -> None:
    first = make(0)
    (entries,) = (tmp_path / "artifacts").iterdir()
    if damage == "nonsense in it":
        (entries / "nowhere").touch()
    else:
        shutil.rmtree(tmp_path / "artifacts")
    if damage == "a file":
        (tmp_path / "artifacts").touch()
    second = make(1)
    assert taken_from(tmp_path, second) == (first.run_id if damage == "nonsense in it" else None)
    assert second.artifact
