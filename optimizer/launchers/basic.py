"""One run after the other, in this process."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from optimizer.launchers.attempt import attempt
from optimizer.launchers.launcher import Outcomes, R, T
from optimizer.settings import Settings


class Basic(Settings):
    """One run after the other, in this process."""

    kind: ClassVar[str] = "basic"

    @property
    def workers(self) -> int:
        """How many runs at once at most."""
        return 1

    @property
    def one_by_one(self) -> bool:
        """Each begins when the outcome of the one before has been taken."""
        return True

    def launch(self, function: Callable[[T], R], items: Sequence[T], folder: Path) -> Outcomes[R]:
        """Yield each item's outcome, in order."""
        return ((index, attempt(function, item)) for index, item in enumerate(items))
