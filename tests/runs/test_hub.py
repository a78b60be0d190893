"""Runs of models from the hub: the commit that was optimized is in the row and in the manifest."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import rows
from fake_hub import FakeHub, Repository, files_of

Command = Callable[..., tuple[int, str, str]]
FIXED = ("recipe=fp16", "data.path=builtin", "evaluation=quick", "evaluation.repetitions=0", "evaluation.examples=4")


@pytest.fixture
def repository(tiny_model, fake_hub: FakeHub) -> Repository:
    found: Repository = fake_hub.add("team/tickets", tiny_model("sequence-classification"))
    return found


def manifest(out: Path, row: dict[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((out / row["artifact"] / "manifest.json").read_text())
    return values


def test_row_and_manifest_say_the_commit(optimizer: Command, repository: Repository, tmp_path: Path) -> None:
    code, _, err = optimizer(*FIXED, "model=hub", "model.path=team/tickets@main")
    assert code == 0, err
    (row,) = rows(tmp_path / "outputs")
    assert (row["model"], row["original_commit"]) == ("team/tickets", repository.branches["main"])
    found = manifest(tmp_path / "outputs", row)
    assert (found["original"], found["original_commit"]) == ("team/tickets", repository.branches["main"])


def test_a_directory_has_no_commit(optimizer: Command, tiny_model, tmp_path: Path) -> None:
    code, _, err = optimizer(*FIXED, f"model.path={tiny_model('sequence-classification')}")
    assert code == 0, err
    (row,) = rows(tmp_path / "outputs")
    assert row["original_commit"] == ""
    assert "original_commit" not in manifest(tmp_path / "outputs", row)


def test_a_branch_that_has_moved_is_another_run_once_it_is_asked_for(
    optimizer: Command, repository: Repository, tiny_model, tmp_path: Path
) -> None:
    command = (*FIXED, "model=hub", "model.path=team/tickets")
    assert optimizer(*command)[0] == 0
    before = repository.branches["main"]
    other = tiny_model("sequence-classification", tmp_path / "other", initializer_range=0.4)
    after = repository.commit(files_of(other))
    assert optimizer(*command)[0] == 0
    assert [row["original_commit"] for row in rows(tmp_path / "outputs")] == [before]
    assert optimizer(*command, "model.refresh=true")[0] == 0
    found = rows(tmp_path / "outputs")
    assert sorted(row["original_commit"] for row in found) == sorted([before, after])
    assert len({row["run_id"] for row in found}) == 2


def test_an_artifact_of_another_commit_is_not_taken_for_this_ones(
    optimizer: Command, repository: Repository, tmp_path: Path
) -> None:
    """Two commits may hold the same model: the manifest says which one was optimized."""
    command = (*FIXED, "model=hub")
    assert optimizer(*command, "model.path=team/tickets")[0] == 0
    second = repository.commit(repository.commits[repository.branches["main"]], branch="next")
    assert optimizer(*command, "model.path=team/tickets@next", "seed=1")[0] == 0
    found = {row["original_commit"]: row for row in rows(tmp_path / "outputs")}
    assert set(found) == {repository.branches["main"], second}
    assert all(manifest(tmp_path / "outputs", row)["original_commit"] == commit for commit, row in found.items())
