"""Runs side by side on this machine, by joblib."""

import threading
import time
from collections.abc import Callable, Generator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from optimizer.errors import OptimizerError
from optimizer.launchers.attempt import attempt, require
from optimizer.launchers.side_by_side import SideBySide
from optimizer.processes import process

T = TypeVar("T")
R = TypeVar("R")

_SECONDS_BETWEEN_LOOKS = 0.05


class Joblib(SideBySide):
    """Runs side by side on this machine: `n_jobs` at once, -1 for as many as it has cores."""

    kind: ClassVar[str] = "joblib"

    def launch(
        self, function: Callable[[T], R], items: Sequence[T], folder: Path
    ) -> Generator[tuple[int, R | OptimizerError], None, None]:
        """Yield the index of each item and what `function` returns for it, or how it failed, as each finishes.

        Closing the iterator ends every process that `function` waits for by `process.call`, and waits until
        `function` has left all threads. Raises RecipeError where joblib is missing.
        """
        return self._outcomes(require("joblib"), partial(attempt, function), items)

    def _outcomes(
        self, joblib: Any, function: Callable[[T], R | OptimizerError], items: Sequence[T]
    ) -> Generator[tuple[int, R | OptimizerError], None, None]:
        if not items:
            return
        stopping = threading.Event()
        busy: set[int] = set()

        def work(index: int, item: T) -> tuple[int, R | OptimizerError | None]:
            busy.add(index)
            try:
                return index, None if stopping.is_set() else function(item)
            finally:
                busy.discard(index)

        # Threads are enough, and nothing is pickled twice: what a run computes it computes in processes of its own.
        parallel = joblib.Parallel(n_jobs=self.workers, backend="threading", return_as="generator_unordered")
        outcomes = parallel(joblib.delayed(work)(index, item) for index, item in enumerate(items))
        try:
            # `yield from` would pass a close on to joblib, which would warn.
            for outcome in outcomes:  # noqa: UP028
                yield outcome
        finally:
            stopping.set()
            while busy:
                process.end_all()  # again and again: a run that loses one process may start its next
                time.sleep(_SECONDS_BETWEEN_LOOKS)
            for _ in outcomes:  # the rest is None by now; joblib warns when nobody takes it
                pass
