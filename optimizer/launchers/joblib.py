"""Runs side by side on this machine, in threads; named after joblib, by which Hydra's users know it."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import ClassVar

from optimizer.errors import OptimizerError
from optimizer.launchers.attempt import attempt
from optimizer.launchers.launcher import Outcomes, R, T
from optimizer.launchers.side_by_side import SideBySide
from optimizer.processes import process

_SECONDS_BETWEEN_LOOKS = 0.05


class Joblib(SideBySide):
    """Runs side by side on this machine: `n_jobs` at once, -1 for as many as it has cores."""

    kind: ClassVar[str] = "joblib"

    def launch(self, function: Callable[[T], R], items: Sequence[T], folder: Path) -> Outcomes[R]:
        """Yield each item's outcome as it finishes.

        Closing the iterator ends every process that `function` waits for by `process.call`, and waits until
        `function` has left all threads.
        """
        # Threads are enough, and nothing is pickled twice: what a run computes it computes in processes of its own.
        pool = ThreadPoolExecutor(self.workers)
        indices: dict[Future[R | OptimizerError], int] = {}
        try:
            for index, item in enumerate(items):
                indices[pool.submit(attempt, function, item)] = index
            for future in as_completed(indices):
                yield indices[future], future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            while not all(future.done() for future in indices):
                process.end_all()  # again and again: a run that loses one process may start its next
                time.sleep(_SECONDS_BETWEEN_LOOKS)
            pool.shutdown()
