"""What a format is: how weights are stored, and how much of the disk they take; what loads it is in `loading`."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from optimizer.engines.mixed_precision import Likeness
from optimizer.manifest import Listed
from optimizer.model.outline import Entry, Outline
from optimizer.settings import Settings
from optimizer.stages.staging import Staged


@dataclass(frozen=True)
class Calibrated:
    """Texts to calibrate on: `examples` gives the tokens of each, `[1, tokens]` by the model's names for its inputs.

    `likeness` is how answers to them are compared, `record` what the manifest says of them and of where they were run
    through the model.
    """

    examples: Callable[[], list[dict[str, torch.Tensor]]]
    likeness: Likeness
    record: Mapping[str, Any]


@dataclass(frozen=True)
class Context:
    """What a format is given to write with: its own `settings`, if it has any, how many `threads`, a line's `log`.

    `calibration` is there where the format says that it is `calibrated`.
    """

    settings: Settings | None
    threads: int
    log: Callable[[str], None]
    calibration: Calibrated | None = None


@dataclass(frozen=True)
class Stored:
    """The bytes of an artifact's weight files, and how many values they hold, of which how many are zero."""

    bytes: int
    values: int
    zeros: int


class Format(Protocol):
    """One way to store a model.

    `packages` are what it needs installed, and `extra` the extra of this package that brings them, None where there is
    none; `how_to_load` the words on the card, `settings` the type of its own settings in a recipe (`engine`), None for
    none. `casts` as for an Outline. `unpacks_to` is the format that `unpack` gives,
    None for one that is not to be unpacked; `holds_weights` says that `plain` gives the weights by their names.
    """

    name: str
    packages: tuple[str, ...]
    extra: str | None
    how_to_load: str
    settings: type[Settings] | None
    casts: bool
    unpacks_to: str | None
    holds_weights: bool

    def bits(self, entry: Entry) -> float:
        """About how many bits a value of a tensor takes in the file; rather too many."""

    def check(self, original: Outline) -> None:
        """Raise StageError for a model that it does not store."""

    def calibrated(self, settings: Settings | None) -> bool:
        """Whether it needs texts to calibrate on, with these settings of its own."""

    def write(self, staged: Staged, directory: Path, context: Context) -> Listed | None:
        """Write the weights and config.json; what the manifest says of each tensor, None of a graph."""

    def stored(self, directory: Path, names: Collection[str]) -> Stored:
        """What its files hold; `names` are the original's tensors, so that scales and their like do not count."""

    def plain(self, directory: Path) -> Iterator[tuple[str, torch.Tensor]]:
        """The weights by their names, one at a time, as the dense format stores them.

        Raises ArtifactError for a damaged one.
        """

    def unpack(self, directory: Path, output: Path) -> tuple[set[str], Listed | None]:
        """Write what it holds in the format `unpacks_to` into `output`.

        Returns the names of the files that this stands for, and what the manifest says of each tensor, None of a graph.
        """
