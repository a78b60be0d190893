"""Where runs are kept besides `out`: a tracker a file, and the one table of them.

A tracker is a module with `check`, which raises an OptimizerError where nothing can be kept, and `keep`, which takes a
Record and returns its address. To add one, copy mlflow.py.
"""

import importlib
from functools import partial
from pathlib import Path
from typing import Any

from optimizer.errors import PackageError, RecipeError, install, nearest
from optimizer.rows.row import Row
from optimizer.runs.run import Track
from optimizer.tracking.record import record

TRACKERS = {"mlflow": "optimizer.tracking.mlflow"}


def tracker(name: str | None) -> Track | None:
    """What keeps each run at its end, in whichever process that is; None for none.

    Raises RecipeError for an unknown one, PackageError for one that is not installed, and what its `check` raises.
    """
    if name is None:
        return None
    if name not in TRACKERS:
        raise RecipeError(f"track: unknown tracker '{name}'; {nearest(name, TRACKERS)}")
    try:
        _module(name).check()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "optimizer":
            raise
        raise PackageError(f"track: needs the package {error.name}; run: {install(name)}") from None
    return partial(_keep, name)


def _keep(name: str, out: Path, row: Row) -> str:
    return str(_module(name).keep(record(out, row)))


def _module(name: str) -> Any:
    return importlib.import_module(TRACKERS[name])
