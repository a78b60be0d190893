"""Other systems, as far as one can pretend: what only Linux has is taken away, and loading, a run and a sweep go on."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import rows
from documents import section

ROOT = Path(__file__).parent.parent
TAKEN = ("fcntl", "resource", "affinity", "sigmask", "getuid", "link", "proc", "forkserver", "renameat2")
WINDOWS = "fcntl,resource,affinity,sigmask,getuid,proc,forkserver,renameat2"
MACOS = "affinity,proc,renameat2"


def python(place: Path, without: str, *arguments: str) -> str:
    """What Python prints; this process and all that it starts are without those names."""
    path = os.pathsep.join([str(ROOT / "tests" / "elsewhere"), str(ROOT)])
    environment = os.environ | {"PYTHONPATH": path, "OPTIMIZER_TEST_WITHOUT": without}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run(place: Path, without: str) -> None:
    """A run, a sweep with a second start, and loading in another process."""
    command = ["-m", "optimizer", "recipe=packed_fp16", "data.limit=40", "evaluation.repetitions=2"]
    python(place, without, *command)
    (row,) = rows(place / "outputs")
    assert row["status"] == "ok", row["error"]
    assert float(row["agreement"]) == 1
    assert float(row["peak_memory_mb"]) > 0
    assert int(row["threads"]) >= 1
    load = "import builtins, optimizer, sys; print(*getattr(builtins, 'OPTIMIZER_TEST_TAKEN', ()), sep=',');" \
        "print(type(optimizer.load(sys.argv[1])).__name__)"  # fmt: skip
    assert python(place, without, "-c", load, f"outputs/{row['artifact']}").split() == [
        without, "BertForSequenceClassification",
    ]  # fmt: skip


def test_the_page_says_what_happens_without_each() -> None:
    table = section("docs/platforms.md", "## Systems")
    told = {name: systems for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
            for name, systems in re.findall(r"`(\w+)`(?: \((\w+)\))?", row)}  # fmt: skip
    assert set(told) == set(TAKEN)
    assert {name for name, systems in told.items() if systems in ("Windows", "both")} == set(WINDOWS.split(","))
    assert {name for name, systems in told.items() if systems == "both"} == set(MACOS.split(","))


def test_all_that_windows_lacks(tmp_path: Path) -> None:
    run(tmp_path, WINDOWS)


@pytest.mark.slow
@pytest.mark.parametrize("without", [*TAKEN, MACOS])
def test_each_alone(tmp_path: Path, without: str) -> None:
    run(tmp_path, without)


@pytest.mark.slow
@pytest.mark.parametrize("without", [MACOS, WINDOWS])
def test_sweeps_resume_there(tmp_path: Path, without: str) -> None:
    sweep = ["-m", "optimizer", "-m", "recipe=pruned", "pruning_amount=0.2,0.4", "evaluation=none"]
    for _ in range(2):
        python(tmp_path, without, *sweep)
        assert [row["status"] for row in rows(tmp_path / "outputs")] == ["ok", "ok"]
    python(tmp_path, without, *sweep, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "force=true")
    assert [row["status"] for row in rows(tmp_path / "outputs")] == ["ok", "ok"]


@pytest.mark.slow
def test_scripts_replace_a_model_in_place_there(tmp_path: Path) -> None:
    import shutil

    from optimizer import demo

    shutil.copytree(demo.MODEL, tmp_path / "model")
    script = str(ROOT / "scripts" / "quantization_code.py")
    python(tmp_path, WINDOWS, script, "--model_path", "model", "--no-use_bnb")
    assert (tmp_path / "model" / "manifest.json").exists()
    assert (tmp_path / "model.original").is_dir()
