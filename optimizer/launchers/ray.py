"""Runs side by side on this machine or over a Ray cluster."""

import contextlib
import logging
import os
import socket
import sys
import tempfile
import urllib.parse
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from optimizer.errors import ProcessError, RecipeError, first_line
from optimizer.launchers.attempt import attempt, require
from optimizer.launchers.launcher import Outcomes, R, T
from optimizer.processes import family
from optimizer.processes.cores import cores
from optimizer.settings import Settings

# Ray reports its usage to its makers, and prints a paragraph on stdout for a worker's death, a failed item here.
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "1", "RAY_DEDUP_LOGS_SKIP_REGEX": "."}
_SECONDS_TO_ANSWER = 10.0
_SECONDS_TO_CANCEL = 30.0
_SECONDS_TO_LEAVE = 3.0


class Ray(Settings):
    """Runs as Ray tasks: on a Ray that is started here and ended after them, or on the cluster at `address`."""

    kind: ClassVar[str] = "ray"

    address: str | None = None
    num_cpus: float = Field(default=1.0, gt=0)
    num_gpus: float = Field(default=0.0, ge=0)
    n_jobs: int | None = Field(default=None, ge=1)

    @property
    def workers(self) -> int:
        """How many runs at once at most; how many a cluster has room for is not known before."""
        if self.n_jobs is not None:
            return self.n_jobs
        return max(1, int(cores() / self.num_cpus)) if self.address is None else sys.maxsize

    @property
    def one_by_one(self) -> bool:
        """The next begins when one ends."""
        return False

    def launch(self, function: Callable[[T], R], items: Sequence[T], folder: Path) -> Outcomes[R]:
        """Yield each item's outcome as it finishes.

        Closing the iterator ends all tasks. Raises RecipeError where Ray is missing, and, when the first outcome is
        asked for, when no Ray is at `address` or it has no node big enough.
        """
        os.environ.update(_QUIET)  # read when Ray is imported
        return self._outcomes(require("ray"), function, items)

    def _outcomes(self, ray: Any, function: Callable[[T], R], items: Sequence[T]) -> Outcomes[R]:
        if not items:
            return
        waiting = deque(enumerate(items))
        running: dict[Any, int] = {}
        with _connected(ray, self.address):
            self._check_room(ray)
            task = ray.remote(attempt).options(num_cpus=self.num_cpus, num_gpus=self.num_gpus, max_retries=0)
            try:
                while waiting or running:
                    while waiting and len(running) < self.workers:
                        index, item = waiting.popleft()
                        running[task.remote(function, item)] = index
                    (done, *_), _ = ray.wait(list(running))
                    yield running.pop(done), _outcome(ray, done)
            finally:
                _cancel(ray, list(running))

    def _check_room(self, ray: Any) -> None:
        wanted = {"CPU": self.num_cpus, "GPU": self.num_gpus}
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(all(node.get(name, 0) >= amount for name, amount in wanted.items()) for node in nodes):
            raise RecipeError(
                f"hydra.launcher: no node of this Ray has num_cpus={self.num_cpus:g} and num_gpus={self.num_gpus:g}; "
                "write less"
            )


@contextlib.contextmanager
def _connected(ray: Any, address: str | None) -> Iterator[None]:
    """In the block Ray is at hand; what was started for it has ended after it."""
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is not None:
        try:
            _knock(address)
            ray.init(address=address, **quiet)
        except (OSError, ValueError, RuntimeError) as error:
            raise RecipeError(f"hydra.launcher.address: '{address}': no Ray there: {first_line(error)}") from None
        try:
            yield
        finally:
            ray.shutdown()
        return
    before = family.family()
    # Ray keeps the logs of every session for ever, and its sockets allow no long path.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as scratch:
        try:
            ray.init(num_cpus=cores(), include_dashboard=False, _temp_dir=scratch, **quiet)
            yield
        finally:
            started = [process for process in family.family() if process not in before]
            ray.shutdown()
            family.wait(started, _SECONDS_TO_LEAVE)  # what a worker has started ends after it
            family.kill(started)


def _knock(address: str) -> None:
    """Raise OSError where nobody listens at HOST:PORT; Ray itself would try for minutes, then end this process."""
    url = urllib.parse.urlsplit(address if "://" in address else f"//{address}")
    if url.hostname and url.port:
        socket.create_connection((url.hostname, url.port), timeout=_SECONDS_TO_ANSWER).close()


def _outcome(ray: Any, done: Any) -> Any:
    try:
        return ray.get(done)
    except ray.exceptions.RayError as error:
        return ProcessError(f"the Ray task died: {type(error).__name__}: {first_line(error)}")


def _cancel(ray: Any, tasks: list[Any]) -> None:
    for task in tasks:
        ray.cancel(task, force=True)
    if tasks:
        ray.wait(tasks, num_returns=len(tasks), timeout=_SECONDS_TO_CANCEL)
