"""The texts that two artifacts of one original answer differently, by what each changed of the original's answers."""

from collections.abc import Sequence

from optimizer.report.changed import MOST, figure, place
from optimizer.report.figures import printable
from optimizer.report.markdown import table
from optimizer.rows.changes import Change, Changes


def between(before: Changes | None, after: Changes | None) -> list[str]:
    """A sentence, and a table of at most MOST texts, those first of which the original is surest; nothing unknown.

    Which side answers as the original does has no margin of its own: it is kept only of answers that changed.
    """
    if before is None or after is None:
        return []
    first, second = ({change.position: change for change in side.shown} for side in (before, after))
    apart = [place for place in first.keys() | second.keys() if _said(first.get(place)) != _said(second.get(place))]
    if not apart:
        return ["Every text is answered alike by both."]
    either = {place: first.get(place) or second[place] for place in apart}
    apart.sort(key=lambda place: (-either[place].original_margin, place))
    counts = {
        "as the original by the first alone": sum(place not in first for place in apart),
        "as the original by the second alone": sum(place not in second for place in apart),
        "by neither": sum(place in first and place in second for place in apart),
    }
    said = "; ".join(f"{count} {how}" for how, count in counts.items() if count)
    total = f"{len(apart)} {'text is' if len(apart) == 1 else 'texts are'} answered differently: {said}."
    shown = apart[:MOST]
    more = f" The {MOST} of which the original is surest:" if len(apart) > MOST else ""
    lines = [_line(either[place], first.get(place), second.get(place)) for place in shown]
    words = any(line[1] for line in lines)
    kept = lines if words else [[line[0], *line[2:]] for line in lines]
    headings = ["text", *(["words"] if words else []), "original", "sure", "before", "sure", "after", "sure"]
    numeric = [index for index, heading in enumerate(headings) if heading == "sure"]
    return [f"{total}{more}", table(headings, kept, numeric=numeric)]


def _said(change: Change | None) -> tuple[str | int | None, ...] | None:
    """What a side makes of a text: None where it answers as the original does."""
    return None if change is None else (change.artifact, change.token, change.tokens)


def _line(known: Change, first: Change | None, second: Change | None) -> list[str]:
    sides = [cell for change in (first, second) for cell in _side(known, change)]
    original = [printable(known.original), figure(known.original_margin)]
    return [place(known), printable(known.words), *original, *sides]


def _side(known: Change, change: Change | None) -> Sequence[str]:
    if change is None:
        return printable(known.original), ""
    return printable(change.artifact), figure(change.artifact_margin)
