"""What the page's and the Markdown's tables show of a run: one column is a heading, a value and its text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from optimizer.report.figures import figure, interval, printable
from optimizer.report.runs import Run
from optimizer.rows.front import closeness, closeness_of, ends


@dataclass(frozen=True)
class Column:
    """A heading, the value that a run is sorted by, and the text that is shown; an empty text is not measured."""

    heading: str
    value: Callable[[Run], float | str | None]
    text: Callable[[Run], str]
    numeric: bool = True


def worth_showing(runs: Sequence[Run]) -> list[Column]:
    """The columns in which at least one run has something to show."""
    return [column for column in _COLUMNS if any(column.text(run) for run in runs)]


def figures(run: Run) -> list[str]:
    """The lines that say how a run did, for beside its point."""
    size, ratio = MEGABYTES.text(run), RATIO.text(run)
    rests = f" ({INTERVAL.text(run)})" if INTERVAL.text(run) else ""
    lines = [
        f"{size} MB, {ratio} of the original" if size and ratio else "",
        f"{closeness(run.row)} {CLOSENESS.text(run)}{rests}" if CLOSENESS.text(run) else "",
        f"{LATENCY.text(run)} ms, speed-up {SPEEDUP.text(run)}" if LATENCY.text(run) else "",
        "slower than its original" if run.is_slower else "",
        "on the front" if run.on_front else "",
    ]
    return [line for line in lines if line]


def _number(heading: str, column: str) -> Column:
    return Column(heading, lambda run: run.figure(column), lambda run: figure(run.row, column))


def _words(heading: str, text: Callable[[Run], str]) -> Column:
    return Column(heading, text, text, numeric=False)


def _closeness(run: Run) -> str:
    return figure(run.row, closeness_of(run.row))


MEGABYTES = _number("MB", "artifact_bytes")
RATIO = _number("size", "size_ratio")
CLOSENESS = Column("agreement", lambda run: run.closeness, _closeness)
INTERVAL = Column("95 % interval", lambda run: ends(run.row)[0], lambda run: interval(run.row))
SPEEDUP = _number("speed-up", "speedup")
LATENCY = _number("ms", "latency_ms_p50")
MODEL = _words("model", lambda run: run.model)
DIFFERS = _words("differs in", lambda run: ", ".join(run.settings))

_COLUMNS = (
    MODEL,
    DIFFERS,
    MEGABYTES,
    RATIO,
    CLOSENESS,
    INTERVAL,
    SPEEDUP,
    LATENCY,
    _number("accuracy", "accuracy"),
    _number("perplexity", "perplexity"),
    _number("memory, MB", "peak_memory_mb"),
    _number("sparsity", "sparsity"),
    _number("examples", "examples"),
    _number("seconds", "optimize_seconds"),
    _words("recipe", lambda run: printable(run.row.recipe)),
    _words("format", lambda run: printable(run.row.format)),
)
