"""The weights that no stage changes, but for the dtype that they are stored in, and why."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from optimizer.model.outline import Entry, Outline
from optimizer.model.weight import Role
from optimizer.stages.staging import Laid

_MATRICES: tuple[Role, ...] = ("linear", "embedding")
_MUCH = 0.1  # of the bytes of linear weights and embeddings


@dataclass(frozen=True)
class Untouched:
    """Weights of one module, shape and dtype: their number, the bytes that they take in the original, the reason."""

    module: str
    shape: tuple[int, ...]
    count: int
    bytes: int
    reason: str

    def __str__(self) -> str:
        many = f"{self.count} of " if self.count > 1 else ""
        shape = " x ".join(map(str, self.shape)) or "one value"
        return f"{self.module}, {many}{shape}, {self.bytes} bytes: {self.reason}"


@dataclass(frozen=True)
class Remainder:
    """What the stages of a recipe leave alone: its share of the weight bytes, and where it is, the largest first.

    `warning` is what to say where more than a tenth of the linear weights and embeddings is in it.
    """

    ratio: float
    weights: tuple[Untouched, ...]
    warning: str | None


def remainder(original: Outline, laid: Sequence[Laid]) -> Remainder:
    """What none of the steps changes that do more than cast, by the original's own bytes."""
    steps = [each for each in laid if each.left_out is None and not each.step.stage.only_casts]
    reasons: dict[str, str] = {}
    changed: set[str] = set()
    for each in steps:
        alone = each.step.stage.leaves_alone(each.before, each.routed)
        changed.update(each.routed.keys() - alone.keys())
        reasons.update(alone)
    left = [entry for entry in original.entries.values() if entry.name not in changed]
    weights = _grouped(left, reasons)
    ratio = _bytes(left) / (_bytes(original.entries.values()) or 1)
    compressing = any(not each.step.stage.only_removes for each in steps)
    return Remainder(ratio, weights, _warning(original, left, reasons) if compressing else None)


def _grouped(left: Sequence[Entry], reasons: Mapping[str, str]) -> tuple[Untouched, ...]:
    def key(entry: Entry) -> tuple[str, tuple[int, ...], str]:
        where = entry.place.module if entry.place and entry.place.module else entry.name
        return where, entry.shape, _reason(entry, reasons)

    found = []
    for (module, shape, reason), entries in groupby(sorted(left, key=key), key):
        group = list(entries)
        found.append(Untouched(module, shape, len(group), _bytes(group), reason))
    return tuple(sorted(found, key=lambda each: (-each.bytes, each.module)))


def _reason(entry: Entry, reasons: Mapping[str, str]) -> str:
    unnamed = "no stage is for it" if entry.place else "the model does not know it"
    return reasons.get(entry.name, unnamed)


def _warning(original: Outline, left: Sequence[Entry], reasons: Mapping[str, str]) -> str | None:
    matrices = [entry for entry in original.entries.values() if entry.place and entry.place.role in _MATRICES]
    alone = [entry for entry in left if entry.place and entry.place.role in _MATRICES]
    share = _bytes(alone) / (_bytes(matrices) or 1)
    if share <= _MUCH:
        return None
    largest = _grouped(alone, reasons)[0]
    return (
        f"its stages leave {share:.0%} of the bytes of linear weights and embeddings alone, the most in "
        f"{largest.module}: {largest.reason}"
    )


def _bytes(entries: Iterable[Entry]) -> int:
    return sum(entry.values * entry.dtype.itemsize for entry in entries)
