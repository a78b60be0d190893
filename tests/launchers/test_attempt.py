"""One attempt at an item, and what submitit's time limit makes of it."""

import signal
from pathlib import Path

import items
import pytest

from optimizer.errors import ProcessError, StageError
from optimizer.launchers.attempt import attempt
from optimizer.launchers.submitit_jobs import new_folder, run


def test_errors_become_outcomes() -> None:
    assert attempt(abs, -1) == 1
    assert isinstance(attempt(items.act, {"do": "raise"}), StageError)
    failure = attempt(items.act, {"do": "divide", "value": 0})
    assert isinstance(failure, ProcessError)
    assert "Traceback" in failure.__notes__[0]
    assert str(attempt(next, iter(()))) == "StopIteration"


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_process_is_not_kept(kind: type[BaseException]) -> None:
    def stop(item: int) -> int:
        raise kind

    with pytest.raises(kind):
        attempt(stop, 0)


def test_submitits_time_limit_is_told_with_the_remedy() -> None:
    utils = pytest.importorskip("submitit.core.utils")

    def late(item: int) -> int:
        raise utils.UncompletedJobError("Job not requeued because: timed-out and not checkpointable.")

    outcome = run(late, 60, 0)
    assert isinstance(outcome, ProcessError)
    assert str(outcome) == "not done when its time ran out; write a hydra.launcher.timeout_min above 60"
    assert run(abs, 60, -2) == 2


def test_each_launch_has_a_folder_of_its_own(tmp_path: Path) -> None:
    # job numbers come back, and an old answer must not be taken for a new one
    first, second = new_folder(tmp_path / "a" / "b"), new_folder(tmp_path / "a" / "b")
    assert first != second
    assert first.parent == second.parent == tmp_path / "a" / "b"


def test_a_job_that_is_told_to_end_leaves_no_outcome() -> None:
    pytest.importorskip("submitit")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit):
        run(signal.raise_signal, 60, signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
