"""What a launcher is."""

from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias, TypeVar

from optimizer.errors import OptimizerError

T = TypeVar("T")
R = TypeVar("R")

Outcomes: TypeAlias = Generator[tuple[int, R | OptimizerError], None, None]
"""(index of the item, what the function returned for it or the OptimizerError that says how it failed)."""


class Launcher(Protocol):
    """How the runs of a sweep are spread; its settings are those of its file in the config group `hydra/launcher`."""

    @property
    def workers(self) -> int:
        """How many runs at once at most."""

    @property
    def one_by_one(self) -> bool:
        """Whether a run begins only when the outcome of the one before has been taken."""

    def launch(self, function: Callable[[T], R], items: Sequence[T], folder: Path) -> Outcomes[R]:
        """Yield each item's outcome as it finishes; logs and the like may be kept in a new folder in `folder`.

        `function` must be one that another process can import, items and results must survive pickling. Closing the
        iterator (contextlib.closing) ends what is still running. Raises RecipeError at once where something that this
        launcher needs is not installed.
        """
