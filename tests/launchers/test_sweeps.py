"""The same sweep by every launcher: the same rows, and artifacts of the same bytes, as one run after the other."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import items
import pytest
from command_line import one_line, rows

from optimizer.errors import RecipeError
from optimizer.launchers import parse

SWEEP = ["-m", "recipe=pruned", "pruning_amount=0.1,0.3,0.5", "threads=1", "data.limit=50", "evaluation.repetitions=2"]
SAME = ("run_id", "status", "artifact_bytes", "sparsity", "agreement", "max_logit_difference", "accuracy", "artifact")


def contents(out: Path) -> dict[str, dict[str, str]]:
    """The manifest's sha256 of every file, by run."""
    found = {}
    for manifest in out.glob("runs/*/artifact/manifest.json"):
        files = json.loads(manifest.read_text())["files"]
        found[manifest.parts[-3]] = {name: file["sha256"] for name, file in files.items()}
    return found


def figures(out: Path) -> list[tuple[str, ...]]:
    return sorted(tuple(row[column] for column in SAME) for row in rows(out))


@pytest.mark.slow
def test_a_sweep_is_the_same_wherever_its_runs_go(
    kind: str, optimizer: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    assert optimizer(*SWEEP, "out=plain")[0] == 0
    code, _, err = optimizer(*SWEEP, f"out={tmp_path}/spread", f"hydra/launcher={kind}")
    assert code == 0, err
    assert err.count(": ok\n") == 3
    plain, spread = tmp_path / "plain", tmp_path / "spread"
    assert contents(spread) == contents(plain)
    assert len(contents(plain)) == 3
    assert figures(spread) == figures(plain)
    assert all(float(row["speedup"]) > 0 for row in rows(spread))
    code, _, err = optimizer(*SWEEP, "out=spread", f"hydra/launcher={kind}")
    assert code == 0
    assert err.count("finished before: ok") == 3


def test_a_wrong_launcher_is_one_line(optimizer: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    for words, said in (
        (["hydra/launcher=jobless"], "jobless"),
        (["hydra/launcher=joblib", "hydra.launcher.jobs=2"], "hydra.launcher.jobs"),
        (["hydra/launcher=joblib", "hydra.launcher.n_jobs=0"], "hydra.launcher.n_jobs: 0: must be 1 or more"),
        (["hydra/launcher=joblib", "++hydra.launcher.n_jobs=0"], "hydra.launcher.n_jobs: 0: must be 1 or more"),
        (["hydra.launcher.n_jobs=2"], "write hydra/launcher=joblib"),
        (["+hydra.launcher.n_jobs=2"], "write hydra/launcher=joblib"),
        (["hydra/launcher=basic", "++hydra.launcher.n_jobs=2"], "write hydra/launcher=joblib"),
        (["+hydra/launcher=joblib"], "write hydra/launcher=joblib"),
    ):
        code, out, err = optimizer("recipe=fp16", "evaluation=none", *words)
        assert (code, out) == (2, "")
        assert said in err
        assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_basic_may_be_written(optimizer: Callable[..., tuple[int, str, str]]) -> None:
    assert optimizer("recipe=fp16", "plan=true", "hydra/launcher=basic")[0] == 0


@pytest.mark.parametrize("flags", [[], ["-m"], ["hydra/launcher=joblib"]])
def test_a_recipe_cannot_choose_the_launcher(
    flags: list[str], optimizer: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    (tmp_path / "team" / "recipe").mkdir(parents=True)
    text = "# @package _global_\ndefaults: [fp16, override /hydra/launcher: joblib, _self_]\n"
    (tmp_path / "team" / "recipe" / "ours.yaml").write_text(text)
    code, _, err = optimizer(*flags, "--config-dir", "team", "recipe=ours")
    assert code == 2
    assert "a recipe cannot choose the launcher" in one_line(err)


@pytest.fixture
def dead_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A SLURM that takes jobs and answers nothing from then on."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, does in {"sbatch": "echo Submitted batch job 7", "srun": "", "squeue": "exit 1", "scancel": ""}.items():
        (folder / name).write_text(f"#!/bin/sh\n{does}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.mark.parametrize("name", ["basic", "joblib", "submitit_local", "submitit_slurm"])
def test_nothing_to_do_leaves_nothing(name: str, dead_slurm: None, tmp_path: Path) -> None:
    if name.startswith("submitit"):
        pytest.importorskip("submitit")
    assert list(parse({"launcher": name} if name != "basic" else None).launch(items.act, [], tmp_path / "own")) == []
    assert not (tmp_path / "own").exists()


def test_a_slurm_that_is_dead_does_not_hide_a_ctrl_c(
    dead_slurm: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("submitit")

    def interrupted(folder: Path) -> set[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr("optimizer.launchers.submitit_slurm.answers", interrupted)
    found = parse({"launcher": "submitit_slurm"}).launch(items.act, [{"do": "square", "value": 1}], tmp_path)
    with pytest.raises(KeyboardInterrupt):
        next(found)
    assert "SLURM jobs may go on (squeue failed); write scancel 7" in caplog.text


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    submitit = pytest.importorskip("submitit")

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(submitit.LocalExecutor, "submit", full)
    found = parse({"launcher": "submitit_local"}).launch(items.act, [{"do": "square", "value": 1}], tmp_path)
    with pytest.raises(RecipeError, match=r"^out: no job can be started from .*No space left on device; make room"):
        next(found)


@pytest.mark.parametrize("name", ["team", "tëam, 'ours'"])
def test_a_teams_own_launcher_is_found(
    name: str, optimizer: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    folder = tmp_path / name / "hydra" / "launcher"
    folder.mkdir(parents=True)
    (folder / "ours.yaml").write_text("launcher: joblib\nn_jobs: 1\n")
    code, _, err = optimizer("--config-dir", name, "recipe=fp16", "evaluation=none", "hydra/launcher=ours")
    assert code == 0, err
    assert "[1/1] fp16-" in err
