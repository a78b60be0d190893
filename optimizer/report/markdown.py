"""The runs as a Markdown table, for pull requests."""

import re
from collections.abc import Collection, Iterable, Sequence

from optimizer.report import columns
from optimizer.report.columns import Column
from optimizer.report.figures import printable
from optimizer.report.runs import Run

_COLUMNS = (
    columns.MODEL,
    columns.DIFFERS,
    columns.MEGABYTES,
    columns.RATIO,
    columns.CLOSENESS,
    columns.INTERVAL,
    columns.SPEEDUP,
    columns.LATENCY,
)


def markdown(runs: Sequence[Run], headline: str, remarks: Sequence[str]) -> str:
    """A headline, the table of the runs, and below it what went wrong and what has to be said."""
    shown = [column for column in _COLUMNS if any(column.text(run) for run in runs)]
    lines = [
        f"**{headline}**",
        "",
        _line(["run", "status", *(column.heading for column in shown)]),
        _line(["---", "---", *("---:" if column.numeric else "---" for column in shown)]),
        *(_line([plain(run.name), run.row.status, *(_cell(column, run) for column in shown)]) for run in runs),
    ]
    errors = [f"- {plain(run.name)} {run.row.status}: {plain(run.error)}" for run in runs if run.row.status != "ok"]
    said = [f"- {plain(remark)}" for remark in remarks]
    if errors or said:
        lines += ["", *errors, *said]
    return "\n".join(lines) + "\n"


def table(headings: Sequence[str], lines: Iterable[Sequence[str]], numeric: Collection[int] = ()) -> str:
    """A table of plain texts; the columns at `numeric` are set to the right."""
    rule = ["---:" if index in numeric else "---" for index in range(len(headings))]
    return "\n".join([_line(headings), _line(rule), *(_line([plain(cell) for cell in line]) for line in lines)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(column: Column, run: Run) -> str:
    text = plain(column.text(run))
    if column is columns.CLOSENESS and run.agrees_little:
        return f"{text} (low)"
    return f"{text} (slower)" if column is columns.SPEEDUP and run.is_slower else text


def plain(text: str) -> str:
    """A text that means itself in Markdown: no table cell ends in it, no HTML, link or emphasis begins in it."""
    return re.sub(r"([\\`*_\[\]<>|&#@~$])", r"\\\1", printable(text))
