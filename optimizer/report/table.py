"""The table on the screen after a run or a sweep, and what has to be said about it."""

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.table import Table

from optimizer.evaluation.sample_size import would_show
from optimizer.report.figures import figure, interval
from optimizer.report.screen import Screen
from optimizer.rows.front import closeness, closeness_of, ends, quality
from optimizer.rows.row import Row, is_held_out, is_slower, rank
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
    names = {"counted": counted(rows), "closeness": _closeness(rows)}
    for name in _RIGHT:
        table.add_column(name.format(**names), justify="right", no_wrap=True)
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
_ASKED = ("model", "format", "pruning_amount", "threshold", "data_part")  # shown where the rows differ in them
_RIGHT: dict[str, Callable[[Row], str]] = {
    "MB": lambda row: figure(row, "artifact_bytes"),
    "size": lambda row: figure(row, "size_ratio"),
    "{closeness}": lambda row: figure(row, closeness_of(row)),
    "95 % interval": interval,
    "{counted}": lambda row: figure(row, "examples"),
    "speed-up": lambda row: figure(row, "speedup"),
    "ms": lambda row: figure(row, "latency_ms_p50"),
}


def counted(rows: Sequence[Row]) -> str:
    """What the examples of these rows are, in one word."""
    found = {row.counted or "texts" for row in rows if row.examples is not None}  # earlier releases did not say
    return found.pop() if len(found) == 1 else "examples" if found else "texts"


def _closeness(rows: Sequence[Row]) -> str:
    """What the closeness of these rows is, in words."""
    found = {closeness(row) for row in rows if quality(row) is not None}
    return found.pop() if len(found) == 1 else "closeness" if found else "agreement"


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _remarks(rows: list[Row]) -> list[str]:
    remarks = [f"{row.run_id} is broken: {broken}." for row in rows if (broken := _broken(row))]
    slower = [row for row in rows if row.speedup and is_slower(row)]
    if slower:
        times = sorted(1 / row.speedup for row in slower if row.speedup)
        if len(rows) == 1:
            remarks.append(f"{slower[0].run_id} is slower than its original: {_times(times[0])} the latency.")
        else:
            remarks.append(
                f"{len(slower)} of {len(rows)} runs are slower than their original: {_range(times)} the latency."
            )
    wide = [row for row in rows if _width(row) > _WIDE_INTERVAL]
    if wide:
        whose = f"{wide[0].run_id}:" if len(rows) == 1 else f"{len(wide)} of {len(rows)} runs:"
        few, widest = min(row.examples or 0 for row in wide), max(map(_width, wide))
        remarks.append(
            f"{whose} {few} {counted(wide)} are too few to pin the {_closeness(wide)} down: "
            f"the interval is {widest:.3f} wide."
        )
    if lost := [row for row in rows if (row.tracked or "").startswith("failed: ")]:
        whose = lost[0].run_id if len(rows) == 1 else f"{len(lost)} of {len(rows)} runs"
        remarks.append(f"{whose} could not be tracked: {(lost[0].tracked or '').removeprefix('failed: ')}")
    for row in rows:
        remarks += [f"{row.run_id}: {line}." for line in would_show(row.gates or (), row.values())]
    return remarks + remarks_on_data(rows)


def _width(row: Row) -> float:
    """How wide the interval of the closeness is; 0 where there is none."""
    low, high = ends(row)
    return 0.0 if low is None or high is None else high - low


def _range(factors: Sequence[float]) -> str:
    """Sorted factors in words, the least and the largest."""
    least, most = factors[0], factors[-1]
    return _times(most) if _times(least) == _times(most) else f"{_times(least).partition(' ')[0]} to {_times(most)}"


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


def _texts(count: int) -> str:
    return "text" if count == 1 else "texts"


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


def _unbiased(row: Row, chosen_by: int) -> str:
    beside = f"; those of the {chosen_by} runs that it was chosen from flatter" if chosen_by else ""
    return f"{row.run_id}: its figures are of texts that no search has chosen by, and unbiased{beside}."


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
    chosen_by = sum(row.data_part == "searched" for row in rows)
    for row in filter(is_held_out, rows):
        remarks.append(_unbiased(row, chosen_by))
    for name, cut in sorted({(row.data or "", row.texts_cut) for row in rows if row.texts_cut}):
        remarks.append(f"{cut} {_texts(cut)} of {name} {_were(cut)} longer than the model reads, and cut.")
    for name, blank in sorted({(row.data or "", row.texts_blank) for row in rows if row.texts_blank}):
        remarks.append(f"{blank} {_texts(blank)} of {name} {_were(blank)} blank.")
    if quick := sum(row.evaluation == "quick" for row in rows):
        whose = "This was" if len(rows) == 1 else f"{quick} of {len(rows)} runs were"
        remarks.append(f"{whose} measured quickly, on too few texts or repetitions to rely on: evaluation=full")
    return remarks
