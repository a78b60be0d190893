"""What a tracker keeps of a run."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from optimizer.errors import OptimizerError
from optimizer.report.differences import settings_of
from optimizer.rows import store
from optimizer.rows.found import RECIPE, find
from optimizer.rows.row import Row


@dataclass(frozen=True)
class Record:
    """A run by plain values: `parameters` are its recipe's settings by dotted name, `figures` the row's finite numbers.

    `texts` are the row's other columns, among them the artifact's `address`, a path; `files` lie in its folder and hold
    no texts that were measured on; `plots` are PNG by name, of all runs in its `out` so far.
    """

    name: str
    status: str
    parameters: Mapping[str, str]
    figures: Mapping[str, float]
    texts: Mapping[str, str]
    files: tuple[Path, ...]
    plots: Mapping[str, bytes]


def record(out: Path, row: Row) -> Record:
    """The record of a run that has just been stored in `out`."""
    folder = store.run_directory(out, row.run_id)
    values = {name: value for name, value in row.values().items() if value is not None and not isinstance(value, list)}
    numbers = {name: float(value) for name, value in values.items() if isinstance(value, int | float)}
    texts = {name: value for name, value in values.items() if isinstance(value, str)}
    if row.artifact:
        texts["address"] = str((out / row.artifact).absolute())
    files = tuple(path for name in (store.ROW_FILE, RECIPE, store.LOG_FILE) if (path := folder / name).is_file())
    return Record(
        name=row.run_id,
        status=row.status,
        parameters=settings_of(folder / RECIPE) or {},
        figures={name: value for name, value in numbers.items() if math.isfinite(value)},
        texts=texts,
        files=files,
        plots=_plots(out),
    )


def _plots(out: Path) -> dict[str, bytes]:
    """The plots of the page; none where what draws them is not installed."""
    try:
        from optimizer.report import plots
    except ModuleNotFoundError:
        return {}
    from optimizer.report.runs import runs

    try:
        found = runs([result.row for result in find(out)], out)
    except OptimizerError:
        return {}
    drawn = {"size_agreement": plots.size_agreement(found), "size_latency": plots.size_latency(found)}
    return {name: plot.png for name, plot in drawn.items() if plot}
