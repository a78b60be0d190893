"""Runs as one SLURM job array, by submitit."""

import contextlib
import io
import logging
import shutil
import time
from collections.abc import Callable, Generator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, ValidationInfo, field_validator

from optimizer.errors import OptimizerError, ProcessError, RecipeError, first_line
from optimizer.launchers import slurm_queue
from optimizer.launchers.attempt import require
from optimizer.launchers.launcher import Outcomes, R, T
from optimizer.launchers.slurm_queue import SlurmError
from optimizer.launchers.submitit_jobs import answers, new_folder, read_answer, run
from optimizer.processes.interrupt import without_sigint
from optimizer.settings import Settings

_log = logging.getLogger(__name__)

_PROGRAMS = ("sbatch", "srun", "squeue", "scancel")
_MB_PER_GB = 1024
_SECONDS_PER_MINUTE = 60
_SECONDS_BETWEEN_LOOKS = 0.5
_SECONDS_BETWEEN_QUERIES = 5.0  # a cluster's controller has better things to do
_SECONDS_WITHOUT_SLURM = 900.0


class SubmititSlurm(Settings):
    """Runs as one SLURM job array, whose jobs and this process see the same files."""

    kind: ClassVar[str] = "submitit_slurm"

    timeout_min: int = Field(default=60, ge=1)
    cpus_per_task: int = Field(default=1, ge=1)
    mem_gb: float | None = Field(default=None, gt=0)
    gpus_per_node: int | None = Field(default=None, ge=1)
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    array_parallelism: int = Field(default=256, ge=1)
    signal_delay_s: int = Field(default=120, ge=1, validate_default=True)
    setup: tuple[str, ...] = Field(default=(), strict=False)
    srun_args: tuple[str, ...] = Field(default=(), strict=False)
    additional_parameters: dict[str, str | int | bool] = Field(default_factory=dict)

    @field_validator("signal_delay_s")
    @classmethod
    def _leaves_time(cls, value: int, info: ValidationInfo) -> int:
        if value >= _SECONDS_PER_MINUTE * info.data.get("timeout_min", value):
            raise ValueError("must be less than timeout_min, which is in minutes, or no time is left to run")
        return value

    @property
    def workers(self) -> int:
        """How many runs at once at most."""
        return self.array_parallelism

    @property
    def one_by_one(self) -> bool:
        """The next begins when one ends."""
        return False

    def launch(self, function: Callable[[T], R], items: Sequence[T], folder: Path) -> Outcomes[R]:
        """Yield each item's outcome as it finishes.

        A new folder in `folder`, which the cluster's nodes must share, keeps the jobs' logs. Closing the iterator
        cancels all jobs. Raises RecipeError where submitit or SLURM's programs are missing, and, when the first
        outcome is asked for, when SLURM refuses the jobs.
        """
        submitit = require("submitit")
        for program in _PROGRAMS:
            if shutil.which(program) is None:
                raise RecipeError(
                    f"hydra.launcher: no {program} here; start this on a machine of the SLURM cluster, "
                    "or write hydra/launcher=joblib"
                )
        return self._outcomes(submitit, partial(run, function, self.timeout_min), items, folder)

    def _outcomes(
        self, submitit: Any, function: Callable[[T], R | OptimizerError], items: Sequence[T], folder: Path
    ) -> Outcomes[R]:
        if not items:
            return
        jobs: dict[str, Any] = {}
        try:
            with without_sigint():
                executor, submitted = _submit(submitit, self._parameters(), function, items, folder)
                jobs.update((job.job_id, job) for job in submitted)
            indices = {job.job_id: index for index, job in enumerate(submitted)}
            for name, outcome in _collect(executor.folder, jobs):
                yield indices[name], outcome
        finally:
            if jobs:
                _cancel(set(jobs))

    def _parameters(self) -> dict[str, Any]:
        """The settings by the names of submitit's SlurmExecutor."""
        values = self.model_dump(exclude={"timeout_min", "mem_gb"}, exclude_none=True)
        # From SLURM 22.05 on srun does not take this over from sbatch.
        values["srun_args"] = [f"--cpus-per-task={self.cpus_per_task}", *self.srun_args]
        values["setup"] = list(self.setup)
        values |= {"job_name": "optimizer", "wckey": "optimizer", "time": self.timeout_min}
        if self.mem_gb is not None:
            values["mem"] = f"{round(self.mem_gb * _MB_PER_GB)}MB"
        return values


def _submit(
    submitit: Any, parameters: dict[str, Any], function: Callable[[T], R], items: Sequence[T], folder: Path
) -> tuple[Any, list[Any]]:
    # submitit prints what sbatch says before it raises it
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            executor = submitit.SlurmExecutor(new_folder(folder))
            executor.update_parameters(**parameters)
            jobs: list[Any] = executor.map_array(function, items)
        except OSError as error:
            raise RecipeError(
                f"out: no job can be started from {folder}: {first_line(error)}; make room there"
            ) from None
        except RuntimeError as error:
            raise RecipeError(f"hydra.launcher: SLURM refuses the jobs: {first_line(error)}") from None
    return executor, jobs


def _cancel(jobs: set[str]) -> None:
    try:
        slurm_queue.cancel(jobs)
    except (SlurmError, OSError) as error:
        # Something is under way already, a Ctrl-C most often, and an error would take its place.
        _log.warning("SLURM jobs may go on (%s); write scancel %s", error, min(jobs).partition("_")[0])


def _collect(folder: Path, jobs: dict[str, Any]) -> Generator[tuple[str, Any], None, None]:
    """Take each job out of `jobs` as it ends, and yield its name and outcome."""
    ended: dict[str, str] = {}
    answered = asked = time.monotonic()
    while jobs:
        for name in answers(folder) & jobs.keys():
            yield name, read_answer(jobs.pop(name), f"SLURM job {name}")
        if jobs and time.monotonic() >= asked + _SECONDS_BETWEEN_QUERIES:
            asked = time.monotonic()
            # Ended when last asked and still no answer: none will come. An answer may be seen later than the end.
            for name in ended.keys() & jobs.keys():
                log = jobs.pop(name).paths.stderr
                yield name, ProcessError(f"SLURM job {name} {ended[name]}; its log is {log}")
            try:
                ended = slurm_queue.ended(set(jobs)) if jobs else {}
                answered = asked
            except SlurmError as error:
                if asked > answered + _SECONDS_WITHOUT_SLURM:
                    ended = dict.fromkeys(jobs, f"may go on, SLURM does not answer ({error})")
        time.sleep(_SECONDS_BETWEEN_LOOKS)
