"""What the plots show, in words, for those who do not see them."""

from collections.abc import Sequence

from optimizer.report.runs import Run

_MOST_NAMED = 8


def agreement(runs: Sequence[Run], drawn: Sequence[Run], what: str) -> str:
    """How many of the runs are in the plot of size against `what`, and which are on the front."""
    several = len({run.model for run in drawn}) > 1
    best = sorted((run for run in drawn if run.on_front), key=lambda run: (run.model, run.number))
    words = f"Size against {what}: {_count(runs, drawn)}"
    if not best:
        return words
    named = ", ".join(
        f"{run.model + ' ' if several else ''}{run.label} ({run.row.size_ratio:.1%}, {run.closeness:.4f})"
        for run in best[:_MOST_NAMED]
    )
    more = f" and {len(best) - _MOST_NAMED} more" if len(best) > _MOST_NAMED else ""
    return f"{words} On the front, where no other run is both smaller and closer: {named}{more}."


def latency(runs: Sequence[Run], drawn: Sequence[Run]) -> str:
    """How many of the runs are in the plot of size against latency, and how many are slower than their original."""
    words = f"Size against latency beside the original's, measured in turns: {_count(runs, drawn)}"
    slower = sum(run.is_slower for run in drawn)
    return f"{words} {slower} of them {'is' if slower == 1 else 'are'} slower than the original."


def _count(runs: Sequence[Run], drawn: Sequence[Run]) -> str:
    return f"{len(drawn)} of {len(runs)} {'run has' if len(runs) == 1 else 'runs have'} these figures."
