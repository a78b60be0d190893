"""All that is known of a model without reading a value."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from optimizer.model.task import Task
from optimizer.model.weight import ROLES, Place

_BITS_PER_BYTE = 8


@dataclass(frozen=True)
class Quantized:
    """What a stage leaves in place of a tensor's floats: codes of about `bits` a value, scales included.

    `fixed` codes are laid out for the one library that reads them and are stored so in every format; others are
    integers times scales, which any format may restore.
    """

    bits: float
    fixed: bool


@dataclass(frozen=True)
class Entry:
    """A tensor: its shape, the dtype of its values (that codes restore to), the file it is stored in, its place.

    `place` is None for a tensor that the model does not know.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    file: str
    place: Place | None
    quantized: Quantized | None = None

    @property
    def values(self) -> int:
        """How many values it holds."""
        return math.prod(self.shape)

    @property
    def plain_bits(self) -> int:
        """The bits of a value where nothing is quantized."""
        return _BITS_PER_BYTE * self.dtype.itemsize


@dataclass(frozen=True)
class Outline:
    """A model as its files' headers show it, or as a stage will leave it; small enough to travel to any process.

    `config` is what config.json says; `entries` its tensors by name, in the order of the files. `linear` names every
    linear module, each with the reason why quantizers leave it alone, or None; `precise` are patterns of the modules
    that stay in float32. `casts` says that what will load it gives each weight the dtype in config.json, whatever it
    is stored in and whatever else is quantized.
    """

    config: Mapping[str, Any]
    task: Task
    entries: Mapping[str, Entry]
    linear: Mapping[str, str | None]
    precise: tuple[str, ...] = ()
    casts: bool = False

    @property
    def places(self) -> dict[str, Place]:
        """The places of the tensors that the model knows."""
        return {name: entry.place for name, entry in self.entries.items() if entry.place is not None}

    @property
    def parameters(self) -> int:
        """How many values the model's own tensors hold, tied ones once."""
        return sum(entry.values for entry in self.entries.values() if entry.place is not None)

    @property
    def method(self) -> str | None:
        """The name of the library that other tensors are laid out for, None where there are none."""
        method = (self.config.get("quantization_config") or {}).get("quant_method")
        return None if method is None else str(method)

    @property
    def loads_as_stored(self) -> bool:
        """Whether plain weights load in the dtype they are stored in, whatever config.json says: beside such ones."""
        return self.method is not None and not self.casts

    def with_entries(self, changed: Iterable[Entry]) -> "Outline":
        """The same with other facts about some of its tensors."""
        return replace(self, entries={**self.entries, **{entry.name: entry for entry in changed}})

    def with_config(self, **changes: Any) -> "Outline":
        """The same with other values in config.json; None removes a key."""
        config = {key: value for key, value in {**self.config, **changes}.items() if changes.get(key, ...) is not None}
        return replace(self, config=config)


def sketch() -> Outline:
    """An outline of any model: a matrix of each role, empty, so that every shape fits.

    What goes wrong with it goes wrong with every model, and can be said before one is opened.
    """
    entries: dict[str, Entry] = {
        role: Entry(role, (0, 0), torch.float32, "any", Place(role, role, role, -1)) for role in ROLES
    }
    return Outline(config={}, task="encoder", entries=entries, linear={"linear": None})
