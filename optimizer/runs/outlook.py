"""What a command would do, run by run, and whether the disk has the space for it."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from optimizer.errors import OptimizerError, RecipeError
from optimizer.recipe import Recipe
from optimizer.rows.row import Row
from optimizer.runs.estimate import artifact_bytes
from optimizer.runs.plan import Plan, failed_row, named_row, plan_all
from optimizer.runs.run import Keep, State
from optimizer.runs.run import state as state_of

_MEGABYTE = 1e6


@dataclass(frozen=True)
class Outlook:
    """A run that a command would do: its row so far, its recipe's values, its state, the bytes its artifact may take.

    `fault` says why it cannot run; then it has no state.
    """

    row: Row
    values: Mapping[str, Any]
    state: State | None
    bytes: int
    fault: str | None = None


def look_ahead(recipes: list[Recipe], out: Path, *, force: bool = False, keep: Keep = "all") -> list[Outlook]:
    """What `sweep` would do with the same arguments, each run once; writes nothing and raises what it would raise."""
    check_keep(recipes, keep)
    if out.exists() and not out.is_dir():
        raise RecipeError(f"out: '{out}' is a file; write out=DIR")
    found: dict[str, Outlook] = {}
    for recipe, plan in zip(recipes, plan_all(recipes, out), strict=True):
        if isinstance(plan, OptimizerError):
            outlook = Outlook(failed_row(recipe, plan), recipe.values(), None, 0, fault=str(plan))
        else:
            state: State = "to do" if force else state_of(plan, out, keep)
            outlook = Outlook(named_row(plan), plan.recipe.values(), state, _bytes(plan, state))
        found.setdefault(outlook.row.run_id, outlook)
    return list(found.values())


def check_keep(recipes: list[Recipe], keep: Keep) -> None:
    """Refuse to keep a front of what will not be measured."""
    if keep == "front" and any(recipe.evaluation.examples == 0 for recipe in recipes):
        raise RecipeError("keep: 'front' needs the agreement, which this evaluation does not measure; write keep=all")


def check_out(plans: list[Plan], out: Path, force: bool, keep: Keep, workers: int) -> None:
    """Raise RecipeError when `out` cannot be written or has not the space for these runs; it is there afterwards.

    When it is refused it is as it was before.
    """
    there = existing(out)
    _check_writable(out)
    try:
        _check_space(plans, out, force, keep, workers)
    except RecipeError:
        for folder in (out.resolve(), *out.resolve().parents):
            if folder == there or any(folder.iterdir()):
                break
            folder.rmdir()
        raise


def _check_writable(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / f".{uuid4().hex}.partial"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise RecipeError(f"out: '{out}' cannot be written ({error.strerror or error}); write out=DIR") from None


def _check_space(plans: list[Plan], out: Path, force: bool, keep: Keep, workers: int) -> None:
    """Refuse what may not fit on the disk: the artifacts that may be there at the same time, at their largest."""
    states: list[State] = ["to do" if force else state_of(plan, out, keep) for plan in plans]
    sizes = sorted((_bytes(plan, state) for plan, state in zip(plans, states, strict=True)), reverse=True)
    needed = sum(sizes[:workers] if keep == "none" else sizes)
    free = shutil.disk_usage(out).free
    if needed > free:
        raise RecipeError(
            f"out: '{out}' has {free / _MEGABYTE:.1f} MB free and these runs may need {needed / _MEGABYTE:.1f} MB; "
            "write out=DIR on another disk, or keep=none"
        )


def existing(folder: Path) -> Path:
    """The folder, or that of those above it which is there."""
    return next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())


def _bytes(plan: Plan, state: State) -> int:
    """What the artifact of a run in this state will take of the disk beyond what is there."""
    return 0 if state in ("finished", "to measure") else artifact_bytes(plan.source.checkpoint, plan.recipe)
