"""Figures of question answering where the answers are known: pure functions of answer texts, as SQuAD counts them."""

import re
import string
from collections import Counter
from collections.abc import Sequence

_MARKS = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def figures(
    original: Sequence[str], artifact: Sequence[str], right: Sequence[Sequence[str]]
) -> dict[str, float | None]:
    """How often both give one of the `right` answers of a text, and how many of its words; none is the empty one.

    Case, punctuation and articles count for nothing (Rajpurkar et al., SQuAD, 2016).
    """
    found: dict[str, float | None] = {}
    for prefix, said in (("", artifact), ("original_", original)):
        best = [[score(one, each) for each in known or [""]] for one, known in zip(said, right, strict=True)]
        found[f"{prefix}exact_match"] = sum(max(exact for exact, _ in scores) for scores in best) / len(best)
        found[f"{prefix}answer_f1"] = sum(max(f1 for _, f1 in scores) for scores in best) / len(best)
    return found


def score(said: str, right: str) -> tuple[float, float]:
    """Whether two answers are the same, and the F1 of their words."""
    one, other = _words(said), _words(right)
    if not one or not other:
        return float(one == other), float(one == other)
    shared = (Counter(one) & Counter(other)).total()
    return float(one == other), 2 * shared / (len(one) + len(other))


def _words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_MARKS)).split()
