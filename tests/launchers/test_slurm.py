"""What can happen to jobs of a real SLURM."""

import subprocess
from pathlib import Path
from typing import Any

import items
import pytest
from test_launch import queued, sleeping

from optimizer.errors import ProcessError, RecipeError
from optimizer.launchers import parse

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("slurm")]
pytest.importorskip("submitit")


def test_a_cancelled_job_fails_alone(tmp_path: Path) -> None:
    sleeper: dict[str, Any] = {"do": "sleep", "folder": str(tmp_path)}
    found = parse({"launcher": "submitit_slurm"}).launch(
        items.act, [{"do": "square", "value": 3}, sleeper, sleeper], tmp_path / "own"
    )
    assert next(found)[0] == 0
    sleeping(tmp_path, 1)
    lines = subprocess.run(["squeue", "--noheader", "--format=%i"], capture_output=True, text=True, check=True).stdout
    array = lines.split("_")[0].strip()
    subprocess.run(["scancel", array], check=True)
    for index, outcome in found:
        assert isinstance(outcome, ProcessError)
        assert str(outcome).startswith(f"SLURM job {array}_{index} ended as CANCELLED; its log is ")
    assert queued() == ""


def test_settings_reach_sbatch(tmp_path: Path) -> None:
    settings = {"cpus_per_task": 2, "mem_gb": 0.5, "timeout_min": 7, "array_parallelism": 1, "setup": ["export SAID=1"]}
    more = {"additional_parameters": {"comment": "of a test", "nice": 3}, "srun_args": ["--kill-on-bad-exit"]}
    work = [{"do": "square", "value": value} for value in range(2)]
    found = parse({"launcher": "submitit_slurm", **settings, **more}).launch(items.act, work, tmp_path)
    assert sorted(index for index, _ in found) == [0, 1]
    (script,) = tmp_path.glob("*/*_submission.sh")
    lines = script.read_text().splitlines()
    for option in ("cpus-per-task=2", "mem=512MB", "time=7", "array=0-1%1", "comment='of a test'", "nice=3"):
        assert f"#SBATCH --{option}" in lines
    assert "export SAID=1" in lines
    assert "--cpus-per-task=2 --kill-on-bad-exit" in script.read_text()


def test_an_unknown_partition_is_one_line(tmp_path: Path) -> None:
    launcher = parse({"launcher": "submitit_slurm", "partition": "nowhere"})
    with pytest.raises(RecipeError, match="SLURM refuses the jobs: sbatch: error: invalid partition specified"):
        list(launcher.launch(items.act, [{"do": "square", "value": 1}], tmp_path))
