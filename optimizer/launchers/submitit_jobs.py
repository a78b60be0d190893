"""What both submitit launchers share: what a job does, and what it has left."""

import pickle
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from optimizer.errors import OptimizerError, ProcessError, first_line
from optimizer.launchers.attempt import attempt
from optimizer.launchers.launcher import R, T

_ANSWER = "_0_result.pkl"


def new_folder(folder: Path) -> Path:
    """A new folder in `folder`: job numbers come back, and an answer of an earlier sweep must not be taken for ours."""
    folder.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="sweep-", dir=folder.absolute()))


def run(function: Callable[[T], R], timeout_min: int, item: T) -> R | OptimizerError:
    """An attempt at `item` in a job that submitit interrupts shortly before `timeout_min` minutes are over."""
    from submitit.core.utils import UncompletedJobError

    def in_time(item: T) -> R:
        try:
            return function(item)
        except UncompletedJobError:
            raise ProcessError(
                f"not done when its time ran out; write a hydra.launcher.timeout_min above {timeout_min}"
            ) from None

    # submitit ignores SIGTERM. It ends the processes that `function` waits for, though, and would look like a failure
    # of theirs; and what ignores it SLURM kills half a minute later only.
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        return attempt(in_time, item)
    finally:
        signal.signal(signal.SIGTERM, before)


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def answers(folder: Path) -> set[str]:
    """The names of the jobs that have left an answer in `folder`."""
    # Opening the folder is what makes a network file system look for new files.
    return {path.name.removesuffix(_ANSWER) for path in folder.iterdir() if path.name.endswith(_ANSWER)}


def read_answer(job: Any, name: str) -> Any:
    """What `run` has returned in a job that has left an answer; an OptimizerError if it did not even start."""
    try:
        outcome, value = pickle.loads(job.paths.result_pickle.read_bytes())
    except Exception as error:  # unpickling can raise anything
        return ProcessError(f"{name}: its answer cannot be read: {type(error).__name__}: {first_line(error)}")
    if outcome == "success":
        return value
    return ProcessError(f"{name}: {value.strip().splitlines()[-1]}")
