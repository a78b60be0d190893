"""What SLURM says and does not say, by programs that stand in for its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import items
import pytest

from optimizer.errors import OptimizerError, ProcessError, RecipeError
from optimizer.launchers import parse, slurm_queue, submitit_slurm
from optimizer.launchers.slurm_queue import SlurmError, cancel, ended

_UNKNOWN = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """`program(name, script)` puts a program on PATH, the only ones there beside the system's."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def put(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return put


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in (
        (submitit_slurm, "_SECONDS_BETWEEN_LOOKS"),
        (submitit_slurm, "_SECONDS_BETWEEN_QUERIES"),
        (submitit_slurm, "_SECONDS_WITHOUT_SLURM"),
        (slurm_queue, "_SECONDS_BETWEEN_LOOKS"),
        (slurm_queue, "_SECONDS_TO_END"),
    ):
        monkeypatch.setattr(module, name, 0.05)


def launch(folder: Path, count: int) -> list[tuple[int, Any]]:
    pytest.importorskip("submitit")
    work = [{"do": "square", "value": value} for value in range(count)]
    return list(parse({"launcher": "submitit_slurm"}).launch(items.act, work, folder))


def test_every_state(program: Callable[[str, str], None]) -> None:
    states = {"1_0": "PENDING|Priority", "1_1": "RUNNING|None", "1_2": "COMPLETED|None", "1_3": "OUT_OF_MEMORY|None"}
    states |= {"1_4": "COMPLETING|None", "1_5": "PENDING|launch failed requeued held", "1": "CANCELLED|Priority"}
    program("squeue", "\n".join(f"echo '{job}|{state}'" for job, state in states.items()))
    assert ended({f"1_{index}" for index in range(7)}) == {
        "1_2": "ended as COMPLETED",
        "1_3": "ended as OUT_OF_MEMORY",
        "1_5": "cannot begin: launch failed requeued held",
        "1_6": "ended as CANCELLED",  # before it began: listed with others under the array's number
    }


def test_a_job_that_nobody_knows_is_gone_and_silence_is_something_else(program: Callable[[str, str], None]) -> None:
    program("squeue", _UNKNOWN)
    assert ended({"7"}) == {"7": "is gone: SLURM does not know it any more"}
    program("squeue", "exit 0")
    assert ended({"7_1"}) == {"7_1": "is gone: SLURM does not know it any more"}
    program("squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(SlurmError, match=r"^slurm_load_jobs error: Unable to contact slurm controller$"):
        ended({"7"})


def test_an_unanswered_question_ends(program: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm_queue, "_SECONDS_TO_ANSWER", 0.2)
    program("squeue", "exec sleep 60")
    with pytest.raises(SlurmError, match=r"^squeue does not answer$"):
        ended({"7"})


@pytest.mark.usefixtures("impatient")
def test_what_does_not_end_when_cancelled_is_told(program: Callable[[str, str], None], tmp_path: Path) -> None:
    program("scancel", f'echo "$@" >> {tmp_path}/said; exit 1')
    program("squeue", "echo '7_1|RUNNING|None'; echo '7_2|CANCELLED|None'")
    with pytest.raises(SlurmError, match=r"^1 of them do not end$"):
        cancel({"7_1", "7_2"})
    assert (tmp_path / "said").read_text() == "--quiet 7\n"
    cancel({"7_2"})


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("squeue", "how"),
    [
        (_UNKNOWN, "is gone: SLURM does not know it any more; its log is "),
        ("echo '12|TIMEOUT|TimeLimit'", "ended as TIMEOUT; its log is "),
        ("echo 'down' >&2; exit 1", "may go on, SLURM does not answer (down); its log is "),
    ],
)
def test_a_job_without_an_answer_is_not_waited_for(
    program: Callable[[str, str], None], tmp_path: Path, squeue: str, how: str
) -> None:
    program("sbatch", "echo Submitted batch job 12")
    program("srun", "exit 1")
    program("scancel", "exit 0")
    program("squeue", squeue)
    ((index, outcome),) = launch(tmp_path / "own", 1)
    assert index == 0
    assert isinstance(outcome, ProcessError)
    assert str(outcome).startswith("SLURM job 12")
    assert how in str(outcome)
    assert "\n" not in str(outcome)


def test_refused_jobs_are_one_line(
    program: Callable[[str, str], None], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    program("sbatch", "echo 'sbatch: error: invalid partition specified: x' >&2; exit 1")
    for name in ("srun", "scancel", "squeue"):
        program(name, "exit 1")
    with pytest.raises(OptimizerError) as caught:
        launch(tmp_path / "own", 2)
    assert isinstance(caught.value, RecipeError)
    assert str(caught.value) == "hydra.launcher: SLURM refuses the jobs: sbatch: error: invalid partition specified: x"
    assert capfd.readouterr().err == ""
