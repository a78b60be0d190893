"""The answers of a run that are not its original's, as tables show them."""

from collections.abc import Sequence

from optimizer.report.figures import printable
from optimizer.rows.changes import Change

MOST = 20
"""Answers that are shown of a run, the surest of the original first; changed.jsonl has all."""


def headings(changes: Sequence[Change]) -> tuple[str, ...]:
    """Those of `cells`: a text's words, or its number where no texts are kept, and both answers."""
    return ("text", *(["words"] if _words(changes) else []), "original", "sure", "artifact", "sure")


def cells(change: Change, changes: Sequence[Change]) -> tuple[str, ...]:
    """The texts of one line under `headings`."""
    words = [printable(change.words)] if _words(changes) else []
    answers = (printable(change.original), figure(change.original_margin))
    return place(change), *words, *answers, printable(change.artifact), figure(change.artifact_margin)


def place(change: Change) -> str:
    """Which text it is, and where each token is answered which of its tokens."""
    if change.token is None:
        return str(change.position)
    more = f" and {change.tokens - 1} more" if change.tokens and change.tokens > 1 else ""
    return f"{change.position}, token {change.token}{more}"


def figure(margin: float | None) -> str:
    """A margin; empty where it is not known."""
    return "" if margin is None else f"{margin:.4f}"


def _words(changes: Sequence[Change]) -> bool:
    return any(change.text is not None for change in changes)
