"""Parts of texts, chosen by their sha256: they depend on no order and no seed.

Equal texts stay together, and of texts in groups each group: which is first means nothing without the rest.
"""

import hashlib
from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

from optimizer.data.texts import DataSettings, Text, Texts
from optimizer.errors import DataError

T = TypeVar("T", bound=Hashable)

FEWEST_HELD_OUT = 500
"""Texts that are held out of a search: on fewer the interval of an agreement of 0.99 is more than 0.02 wide."""


def by_hash(texts: Iterable[T]) -> list[T]:
    """Each of the texts, or of what they belong to, once, in the order of their sha256."""
    return sorted(set(texts), key=lambda text: hashlib.sha256(repr(text).encode()).hexdigest())


def held_out_count(texts: int, share: float) -> int | None:
    """How many of so many different texts a search keeps aside: that share, but never less than FEWEST_HELD_OUT.

    None where it would be more than half of them.
    """
    count = max(FEWEST_HELD_OUT, round(share * texts))
    return count if 2 * count <= texts else None


def part(texts: Texts, settings: DataSettings) -> Texts:
    """The part of the texts that `data.part` names, all of them without it; DataError when nothing would be left.

    Of texts in groups so many are held out, or as many more as the last group takes.
    """
    if settings.part is None:
        return texts
    assert settings.held_out is not None
    different = len(set(texts.texts))
    owners: Sequence[Hashable] = texts.texts if texts.groups is None else texts.groups
    held_out = _held_out(owners, texts.texts, settings.held_out)
    if settings.held_out >= different or len(held_out) == len(set(owners)):
        raise DataError(
            f"data.held_out: {settings.held_out} of the {different} different texts of {texts.name} leave none; "
            "write fewer, or for a search search.holdout=0"
        )
    wanted = settings.part == "held_out"
    return texts.at([index for index, owner in enumerate(owners) if (owner in held_out) == wanted])


def _held_out(owners: Sequence[Hashable], texts: Sequence[Text], count: int) -> set[Hashable]:
    """The owners, the last first by their sha256, that have `count` different texts or more together."""
    owned: dict[Hashable, set[Text]] = {}
    for owner, text in zip(owners, texts, strict=True):
        owned.setdefault(owner, set()).add(text)
    chosen: set[Hashable] = set()
    found: set[Text] = set()
    for owner in reversed(by_hash(owned)):
        if len(found) >= count:
            break
        chosen.add(owner)
        found |= owned[owner]
    return chosen
