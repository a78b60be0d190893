"""What a command would do, as a table on the screen."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.table import Table

from optimizer.report.differences import differences, settings
from optimizer.report.figures import MEGABYTE, printable
from optimizer.report.screen import Screen
from optimizer.runs.outlook import Outlook, existing
from optimizer.stages import STAGES

_COLUMNS = ("model", "stages", "format", "pruning_amount", "threshold")


def show_plan(outlooks: list[Outlook], searches: Mapping[str, int], out: Path) -> None:
    """Print the runs with their states, and the disk space that those to do may take and that is free.

    `searches` says by the name of a recipe how many trials it makes. What cannot run is told below the table.
    """
    console = Screen()
    if outlooks:
        console.print(_table(outlooks))
    for outlook in outlooks:
        if outlook.fault:
            console.print(f"{outlook.row.run_id}: cannot run: {outlook.fault}")
    for name, trials in searches.items():
        console.print(f"{name}: a search of {trials} trials, which it chooses as it goes")
    lost = sum(outlook.fault is not None for outlook in outlooks)
    to_do = sum(outlook.state not in ("finished", None) for outlook in outlooks)
    needed = sum(outlook.bytes for outlook in outlooks)
    free = shutil.disk_usage(existing(out)).free
    counts = [f"{len(outlooks)} run{'' if len(outlooks) == 1 else 's'}", f"{to_do} to do"]
    counts += [f"{lost} cannot run"] if lost else []
    space = f"at most {needed / MEGABYTE:.1f} MB of artifacts, {free / MEGABYTE:.0f} MB free in {out}"
    console.print(f"{', '.join(counts)}; {space}; nothing was done")


def _table(outlooks: Sequence[Outlook]) -> Table:
    apart = _apart(outlooks)
    asked = list(dict.fromkeys(name for each in apart for name in each))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("run", "state", *_COLUMNS, *asked):
        table.add_column(name, no_wrap=True)
    table.add_column("MB at most", justify="right", no_wrap=True)
    for outlook, differs in zip(outlooks, apart, strict=True):
        row = outlook.row
        known = (printable(getattr(row, column)) for column in _COLUMNS)
        size = f"{outlook.bytes / MEGABYTE:.1f}" if outlook.bytes else ""
        state = outlook.state or "cannot run"
        table.add_row(row.run_id, state, *known, *(differs.get(name, "") for name in asked), size)
    return table


def _apart(outlooks: Sequence[Outlook]) -> list[dict[str, str]]:
    """What sets each run apart from the others of its recipe and model, but for what has a column of its own."""
    shown = {"stages", "format"}
    for outlook in outlooks:
        for label, stage in outlook.values["stages"].items():
            if knob := STAGES[stage["stage"]].knob:
                shown.add(f"stages.{label}.{knob.setting}")
    groups = [(outlook.row.recipe, outlook.row.model) for outlook in outlooks]
    found = differences(groups, [settings(outlook.values) for outlook in outlooks])
    return [{name: value for name, value in each.items() if name not in shown} for each in found]
