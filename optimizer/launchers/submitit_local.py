"""Runs side by side on this machine, each in a Python of its own with its own log, by submitit."""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from optimizer.errors import OptimizerError, ProcessError, RecipeError, first_line
from optimizer.launchers.attempt import require
from optimizer.launchers.launcher import Outcomes, R, T
from optimizer.launchers.side_by_side import SideBySide
from optimizer.launchers.submitit_jobs import answers, new_folder, read_answer, run
from optimizer.processes import family
from optimizer.processes.interrupt import without_sigint

_SECONDS_BETWEEN_LOOKS = 0.1


class SubmititLocal(SideBySide):
    """Runs side by side on this machine, each in a Python of its own: `n_jobs` at once, -1 for as many as cores."""

    kind: ClassVar[str] = "submitit_local"

    timeout_min: int = Field(default=60, ge=1)
    gpus_per_node: int = Field(default=0, ge=0)
    setup: tuple[str, ...] = Field(default=(), strict=False)

    def launch(self, function: Callable[[T], R], items: Sequence[T], folder: Path) -> Outcomes[R]:
        """Yield each item's outcome as it finishes.

        A new folder in `folder` keeps the jobs' logs. Closing the iterator ends all jobs. Raises RecipeError where
        submitit is missing, and, when an outcome is asked for, when a job cannot be written to the folder.
        """
        return self._outcomes(require("submitit"), partial(run, function, self.timeout_min), items, folder)

    def _outcomes(
        self, submitit: Any, function: Callable[[T], R | OptimizerError], items: Sequence[T], folder: Path
    ) -> Outcomes[R]:
        if not items:
            return
        with _writable(folder):
            executor = submitit.LocalExecutor(new_folder(folder))
        executor.update_parameters(
            timeout_min=self.timeout_min, gpus_per_node=self.gpus_per_node, setup=list(self.setup)
        )
        waiting = deque(enumerate(items))
        running: dict[int, Any] = {}
        try:
            while waiting or running:
                # submitit itself would start all of them at once
                while waiting and len(running) < self.workers:
                    with without_sigint(), _writable(folder):
                        index, item = waiting.popleft()
                        running[index] = executor.submit(function, item)
                for index, job in list(running.items()):
                    if job.done():
                        del running[index]
                        yield index, _outcome(executor.folder, job)
                time.sleep(_SECONDS_BETWEEN_LOOKS)
        finally:
            for job in running.values():
                _end(job)


@contextlib.contextmanager
def _writable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RecipeError(f"out: no job can be started from {folder}: {first_line(error)}; make room there") from None


def _outcome(folder: Path, job: Any) -> Any:
    if job.job_id in answers(folder):
        return read_answer(job, f"submitit job {job.job_id}")
    return ProcessError(
        f"submitit job {job.job_id} was killed or ran out of time or memory; its log is {job.paths.stderr}"
    )


def _end(job: Any) -> None:
    family.kill(family.family(int(job.job_id)))
    job.done()  # takes note of it
