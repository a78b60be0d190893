"""Figures of models that label words: pure functions of the tags of each sentence's words."""

from collections.abc import Sequence

from optimizer.evaluation.agreement import wilson

Tags = Sequence[str]
"""The names of the classes of a sentence's words."""

_OUTSIDE = "O."
_CLOSES = {"BB", "BS", "BO", "IB", "IS", "IO"}
_OPENS = {"EE", "EI", "SE", "SI", "OE", "OI"}


def figures(original: Sequence[Tags], artifact: Sequence[Tags], gold: Sequence[Tags] | None) -> dict[str, float | None]:
    """How many sentences have all their words tagged alike, and the F1 of both where the right tags are known."""
    same = sum(list(before) == list(after) for before, after in zip(original, artifact, strict=True))
    low, high = wilson(same, len(original))
    found: dict[str, float | None] = {
        "sentence_agreement": same / len(original),
        "sentence_agreement_low": low,
        "sentence_agreement_high": high,
    }
    if gold is None:
        return found
    return found | {"entity_f1": entity_f1(artifact, gold), "original_entity_f1": entity_f1(original, gold)}


def entity_f1(said: Sequence[Tags], right: Sequence[Tags]) -> float | None:
    """F1 of whole entities of the right type over all sentences; None where neither side has any."""
    hits = count = 0
    for one, other in zip(said, right, strict=True):
        found, known = entities(one), entities(other)
        hits += len(found & known)
        count += len(found) + len(known)
    return 2 * hits / count if count else None


def entities(tags: Tags) -> set[tuple[str, int, int]]:
    """The type, the first and the last word of each entity, by the rules of conlleval that seqeval has by default.

    They take tags of any scheme of B, I, E, S and O, and begin an entity where a tag cannot go on with one.
    """
    found = set()
    before, kind_before, start = "O", "", 0
    for place, tag in enumerate([*tags, "O"]):
        mark, kind = tag[0], tag[1:].split("-", maxsplit=1)[-1] or "_"
        other_kind = kind != kind_before
        if before in "ES" or before + mark in _CLOSES or (before not in _OUTSIDE and other_kind):
            found.add((kind_before, start, place - 1))
        if mark in "BS" or before + mark in _OPENS or (mark not in _OUTSIDE and other_kind):
            start = place
        before, kind_before = mark, kind
    return found
