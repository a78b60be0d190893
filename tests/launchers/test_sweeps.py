"""The same sweep by every launcher: the same rows, and artifacts of the same bytes, as one run after the other."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import rows

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
    ):
        code, out, err = optimizer("recipe=fp16", "evaluation=none", *words)
        assert (code, out) == (2, "")
        assert said in err
        assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_teams_own_launcher_is_found(optimizer: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    pytest.importorskip("joblib")
    folder = tmp_path / "team" / "hydra" / "launcher"
    folder.mkdir(parents=True)
    (folder / "ours.yaml").write_text("launcher: joblib\nn_jobs: 1\n")
    code, _, err = optimizer("--config-dir", "team", "recipe=fp16", "evaluation=none", "hydra/launcher=ours")
    assert code == 0, err
    assert "[1/1] fp16-" in err
