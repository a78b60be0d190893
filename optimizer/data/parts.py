"""Parts of texts, chosen by their sha256: they depend on no order and no seed, and equal texts stay together."""

import hashlib
from collections.abc import Iterable

from optimizer.data.texts import DataSettings, Text, Texts
from optimizer.errors import DataError

FEWEST_HELD_OUT = 500
"""Texts that are held out of a search: on fewer the interval of an agreement of 0.99 is more than 0.02 wide."""


def by_hash(texts: Iterable[Text]) -> list[Text]:
    """Each of the texts once, in the order of their sha256."""
    return sorted(set(texts), key=lambda text: hashlib.sha256(repr(text).encode()).hexdigest())


def held_out_count(texts: int, share: float) -> int | None:
    """How many of so many different texts a search keeps aside: that share, but never less than FEWEST_HELD_OUT.

    None where it would be more than half of them.
    """
    count = max(FEWEST_HELD_OUT, round(share * texts))
    return count if 2 * count <= texts else None


def part(texts: Texts, settings: DataSettings) -> Texts:
    """The part of the texts that `data.part` names, all of them without it; DataError when nothing would be left."""
    if settings.part is None:
        return texts
    assert settings.held_out is not None
    ordered = by_hash(texts.texts)
    if settings.held_out >= len(ordered):
        raise DataError(
            f"data.held_out: {settings.held_out} of the {len(ordered)} different texts of {texts.name} leave none; "
            "write fewer"
        )
    held_out = set(ordered[-settings.held_out :])
    wanted = settings.part == "held_out"
    return texts.at([index for index, text in enumerate(texts.texts) if (text in held_out) == wanted])
