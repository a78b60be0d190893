"""What a command would do, as a table on the screen."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from rich.table import Table

from optimizer.report.figures import MEGABYTE
from optimizer.report.screen import Screen
from optimizer.runs.outlook import Outlook, existing

_COLUMNS = ("run", "state", "model", "stages", "format", "pruning_amount", "threshold")


def show_plan(outlooks: list[Outlook], searches: Mapping[str, int], out: Path) -> None:
    """Print the runs with their states, and the disk space that those to do may take and that is free.

    `searches` says by the name of a recipe how many trials it makes.
    """
    console = Screen()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in _COLUMNS:
        table.add_column(name, no_wrap=True)
    table.add_column("MB at most", justify="right", no_wrap=True)
    for outlook in outlooks:
        row = outlook.row
        asked = ("" if (value := getattr(row, column)) is None else str(value) for column in _COLUMNS[2:])
        size = f"{outlook.bytes / MEGABYTE:.1f}" if outlook.bytes else ""
        table.add_row(row.run_id, outlook.state, *asked, size)
    if outlooks:
        console.print(table)
    for name, trials in searches.items():
        console.print(f"{name}: a search of {trials} trials, which it chooses as it goes")
    to_do = sum(outlook.state != "finished" for outlook in outlooks)
    needed = sum(outlook.bytes for outlook in outlooks)
    free = shutil.disk_usage(existing(out)).free
    console.print(
        f"{len(outlooks)} runs, {to_do} to do; at most {needed / MEGABYTE:.1f} MB of artifacts, "
        f"{free / MEGABYTE:.0f} MB free in {out}; nothing was done"
    )
