"""What the page's and the Markdown's tables show of a run: one column is a heading, a value and its text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from optimizer.report.runs import Run, printable

MEGABYTE = 1e6


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


def interval(run: Run) -> str:
    """The 95 % interval of the agreement."""
    low, high = run.figure("agreement_low"), run.figure("agreement_high")
    return "" if low is None or high is None else f"{low:.4f} to {high:.4f}"


def figures(run: Run) -> list[str]:
    """The lines that say how a run did, for beside its point."""
    size, ratio = MEGABYTES.text(run), RATIO.text(run)
    rests = f" ({interval(run)})" if interval(run) else ""
    what = "agreement" if run.row["agreement"] is not None else "cosine similarity"
    lines = [
        f"{size} MB, {ratio} of the original" if size and ratio else "",
        f"{what} {CLOSENESS.text(run)}{rests}" if CLOSENESS.text(run) else "",
        f"{LATENCY.text(run)} ms, speed-up {SPEEDUP.text(run)}" if LATENCY.text(run) else "",
        "slower than its original" if run.is_slower else "",
        "on the front" if run.on_front else "",
    ]
    return [line for line in lines if line]


def _number(heading: str, column: str, pattern: str, scale: float = 1) -> Column:
    def text(run: Run) -> str:
        value = run.row[column]
        return "" if value is None else pattern.format(value / scale)

    return Column(heading, lambda run: run.figure(column), text)


def _words(heading: str, text: Callable[[Run], str]) -> Column:
    return Column(heading, text, text, numeric=False)


def _closeness(run: Run) -> str:
    value = run.row["cosine_similarity"] if run.row["agreement"] is None else run.row["agreement"]
    return "" if value is None else f"{value:.4f}"


MEGABYTES = _number("MB", "artifact_bytes", "{:.2f}", MEGABYTE)
RATIO = _number("size", "size_ratio", "{:.1%}")
CLOSENESS = Column("agreement", lambda run: run.closeness, _closeness)
INTERVAL = Column("95 % interval", lambda run: run.figure("agreement_low"), interval)
SPEEDUP = _number("speed-up", "speedup", "{:.2f}x")
LATENCY = _number("ms", "latency_ms_p50", "{:.1f}")
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
    _number("accuracy", "accuracy", "{:.4f}"),
    _number("perplexity", "perplexity", "{:.2f}"),
    _number("memory, MB", "peak_memory_mb", "{:.0f}"),
    _number("sparsity", "sparsity", "{:.1%}"),
    _number("examples", "examples", "{:.0f}"),
    _number("seconds", "optimize_seconds", "{:.1f}"),
    _words("recipe", lambda run: printable(run.row["recipe"])),
    _words("format", lambda run: printable(run.row["format"])),
)
