"""One run after the other, in this process."""

from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import ClassVar, TypeVar

from optimizer.errors import OptimizerError
from optimizer.launchers.attempt import attempt
from optimizer.settings import Settings

T = TypeVar("T")
R = TypeVar("R")


class Basic(Settings):
    """One run after the other, in this process."""

    kind: ClassVar[str] = "basic"

    @property
    def workers(self) -> int:
        """How many runs at once at most."""
        return 1

    def launch(
        self, function: Callable[[T], R], items: Sequence[T], folder: Path
    ) -> Generator[tuple[int, R | OptimizerError], None, None]:
        """Yield the index of each item and what `function` returns for it, or how it failed, in order."""
        return ((index, attempt(function, item)) for index, item in enumerate(items))
