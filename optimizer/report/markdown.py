"""The runs as a Markdown table, for pull requests."""

import re
from collections.abc import Sequence

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
        *(_line([_plain(run.name), run.row.status, *(_cell(column, run) for column in shown)]) for run in runs),
    ]
    errors = [f"- {_plain(run.name)} {run.row.status}: {_plain(run.error)}" for run in runs if run.row.status != "ok"]
    said = [f"- {_plain(remark)}" for remark in remarks]
    if errors or said:
        lines += ["", *errors, *said]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(column: Column, run: Run) -> str:
    text = _plain(column.text(run))
    if column is columns.CLOSENESS and run.agrees_little:
        return f"{text} (low)"
    return f"{text} (slower)" if column is columns.SPEEDUP and run.is_slower else text


def _plain(text: str) -> str:
    """A text that means itself in Markdown: no table cell ends in it, no HTML, link or emphasis begins in it."""
    return re.sub(r"([\\`*_\[\]<>|&#@~$])", r"\\\1", printable(text))
