"""The table on the screen after a run or a sweep, and what has to be said about it."""

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.table import Table

from optimizer.report.figures import figure, interval
from optimizer.report.screen import Screen
from optimizer.rows.row import Row, is_slower, rank
from optimizer.rows.store import CSV_FILE

_WIDE_INTERVAL = 0.02
_PLAINLY_MORE = 1.1  # times: below it one digit would say 1.0


def show(rows: list[Row], out: Path | None = None) -> None:
    """Print the rows, best first, then plain words about whatever is slower or rests on too little.

    `out` is the folder that their artifacts are relative to.
    """
    console = Screen()
    ordered = sorted(rows, key=rank)
    table = Table(box=None, pad_edge=False, header_style="bold")
    asked = [column for column in _ASKED if len({getattr(row, column) for row in rows}) > 1]
    for name in (*_LEFT, *asked):
        table.add_column(name, no_wrap=True)
    for name in _RIGHT:
        table.add_column(name.format(counted=counted(rows)), justify="right", no_wrap=True)
    for row in ordered:
        known = (_text(getattr(row, column)) for column in asked)
        table.add_row(row.run_id, row.status, *known, *(text(row) for text in _RIGHT.values()))
    console.print(table)
    for remark in _remarks(ordered):
        console.print(remark)
    for row in ordered:
        if row.artifact:
            console.print(f"{row.run_id}: {(out or Path()) / row.artifact}")
    if out:
        console.print(f"rows: {out / CSV_FILE}")


_LEFT = ("run", "status")
_ASKED = ("model", "format", "pruning_amount", "threshold")  # shown where the rows differ in them
_RIGHT: dict[str, Callable[[Row], str]] = {
    "MB": lambda row: figure(row, "artifact_bytes"),
    "size": lambda row: figure(row, "size_ratio"),
    "agreement": lambda row: figure(row, "agreement"),
    "95 % interval": interval,
    "{counted}": lambda row: figure(row, "examples"),
    "speed-up": lambda row: figure(row, "speedup"),
    "ms": lambda row: figure(row, "latency_ms_p50"),
}


def counted(rows: Sequence[Row]) -> str:
    """What the examples of these rows are, in one word."""
    found = {row.counted or "texts" for row in rows if row.examples is not None}  # earlier releases did not say
    return found.pop() if len(found) == 1 else "examples" if found else "texts"


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _remarks(rows: list[Row]) -> list[str]:
    remarks = []
    for row in rows:
        if row.speedup and is_slower(row):
            remarks.append(f"{row.run_id} is slower than its original: {_times(1 / row.speedup)} the latency.")
        if broken := _broken(row):
            remarks.append(f"{row.run_id} is broken: {broken}.")
        if row.agreement_low is None or row.agreement_high is None:
            continue
        if (width := row.agreement_high - row.agreement_low) > _WIDE_INTERVAL:
            remarks.append(
                f"{row.run_id}: {row.examples} {counted([row])} are too few to pin the agreement down: the interval is "
                f"{width:.3f} wide."
            )
    return remarks + remarks_on_data(rows)


def _broken(row: Row) -> str | None:
    """What is plainly wrong with the answers of an artifact, None if nothing is."""
    given, before = row.distinct_answers, row.original_distinct_answers
    if row.agreement is None or given is None or before is None or before < 2:
        return None
    if given == 1:
        return f"it gives one answer to all {row.examples} examples, where the original gives {before} different ones"
    if row.agreement < 1 / before:
        return f"it agrees with the original on fewer examples than guessing among its {before} answers would"
    return None


def _times(factor: float) -> str:
    return f"{factor:.1f} times" if factor >= _PLAINLY_MORE else f"{factor:.2f} times"


def remarks_on_data(rows: list[Row]) -> list[str]:
    """What has to be said about the texts that the rows' agreement rests on, and about how much was measured."""
    remarks = []
    data = {row.data for row in rows}
    if "builtin" in data:
        remarks.append(
            "Agreement was measured on general sentences; what counts is agreement on your texts: data.path=FILE"
        )
    if "random" in data:
        remarks.append("Agreement was measured on random inputs and says little; it satisfies no gate.")
    if quick := sum(row.evaluation == "quick" for row in rows):
        whose = "This was" if len(rows) == 1 else f"{quick} of {len(rows)} runs were"
        remarks.append(f"{whose} measured quickly, on too few texts or repetitions to rely on: evaluation=full")
    return remarks
