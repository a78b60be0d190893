"""Many runs of one command: all are planned before the first starts, and none stops the others."""

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from optimizer.errors import ArtifactError, OptimizerError
from optimizer.launchers import Basic, Launcher
from optimizer.processes import process
from optimizer.recipe import Recipe
from optimizer.rows import store
from optimizer.rows.front import front
from optimizer.rows.row import Row
from optimizer.runs.outlook import check_keep, check_space, check_writable
from optimizer.runs.plan import Plan, failed_row, named_row, plan_all
from optimizer.runs.run import Keep, drop_artifact, forget_failure, judge
from optimizer.runs.run import run as run_plan

_NO_BARS = "TQDM_DISABLE"
Say = Callable[[str], None]


def sweep(
    recipes: list[Recipe],
    out: Path,
    *,
    force: bool = False,
    keep: Keep = "all",
    settle: bool = True,
    launcher: Launcher | None = None,
    say: Say = lambda _: None,
) -> list[Row]:
    """Run every recipe once and return the rows in the order given; `say` takes a line for the screen.

    Finished runs are judged here, the others are spread by the `launcher` (default: one after the other). With `settle`
    False nothing is removed yet and results.csv may lack rows: the caller has more rows to weigh, calls `drop`, and
    assembles. Raises RecipeError when `out` cannot be written or has not the space, and the first OptimizerError when
    no recipe can be planned.
    """
    launcher = launcher or Basic()
    check_writable(out)
    with store.assembled(out) if settle else nullcontext(), _bars(launcher.workers == 1):
        return _sweep(recipes, out, force, keep, settle, launcher, say)


def _sweep(
    recipes: list[Recipe], out: Path, force: bool, keep: Keep, settle: bool, launcher: Launcher, say: Say
) -> list[Row]:
    if any(recipe.evaluation.examples != 0 or recipe.evaluation.repetitions for recipe in recipes):
        process.warm_up()  # its imports take seconds, which planning can cover
    check_keep(recipes, keep)
    rows: dict[str, Row] = {}
    plans: dict[str, Plan] = {}
    to_do: list[Plan] = []
    told: set[str] = set()
    for recipe, plan in zip(recipes, plan_all(recipes, out), strict=True):
        _warn(recipe, say)
        if isinstance(plan, OptimizerError):
            row = failed_row(recipe, plan)
            store.write_row(out, row)
            say(f"{row.run_id}: failed: {row.error}")
        elif plan.run_id in rows:
            say(f"{plan.run_id}: comes to the same run as an earlier combination")
            continue
        elif not force and (stored := judge(plan, out, keep)):
            row = stored
            say(f"{plan.run_id}: finished before{_verdict(row)}")
        else:
            row = named_row(plan)
            to_do.append(plan)
        if isinstance(plan, Plan):
            plans[plan.run_id] = plan
            forget_failure(recipe, out)
            _remark(plan, told, say)
        rows[row.run_id] = row
    store.follow(out)
    if settle:
        drop(rows, out, keep)
    check_space(to_do, out, force, keep, launcher.workers)
    with closing(_spread(to_do, out, force, keep, launcher, say)) as finished:
        for row in finished:
            rows[row.run_id] = row
            store.follow(out)
            if settle:
                drop(rows, out, keep)
    if settle:
        _make_good(rows, plans, out, keep)
    return list(rows.values())


def drop(rows: dict[str, Row], out: Path, keep: Keep) -> None:
    """Remove the artifacts that are not to be kept, as soon as that is known, so that the disk never holds them all.

    `rows` are by their run's id; those whose artifact goes are replaced by rows that say so.
    """
    if keep == "all":
        return
    kept = {row.run_id for row in front(rows.values())} if keep == "front" else set()
    for row in list(rows.values()):
        if row.artifact and row.run_id not in kept:
            rows[row.run_id] = drop_artifact(out, row)


def _spread(
    plans: list[Plan], out: Path, force: bool, keep: Keep, launcher: Launcher, say: Say
) -> Generator[Row, None, None]:
    """The rows of the runs as they finish."""
    if not plans:
        return
    started = datetime.now(UTC).isoformat(timespec="milliseconds")
    run = partial(run_plan, out=out.resolve(), force=force, keep=keep)
    if launcher.one_by_one:
        _announce(plans, 0, say)
    with closing(launcher.launch(run, plans, out.resolve() / "launcher")) as outcomes:
        for number, (index, row) in enumerate(outcomes, start=1):
            if isinstance(row, OptimizerError):
                row = _lost(plans[index], out, row, started)
            if not launcher.one_by_one:
                say(f"[{number}/{len(plans)}] {row.run_id}{_verdict(row)}")
            elif row.status != "ok":
                say(f"{row.run_id}{_verdict(row)}")
            yield row
            if launcher.one_by_one and number < len(plans):
                _announce(plans, number, say)


def _lost(plan: Plan, out: Path, error: OptimizerError, started: str) -> Row:
    """The row of a run whose launcher lost it, or that could not store its own; unless only the answer was lost."""
    stored = store.read_row(out, plan.run_id)
    if stored and (stored.created_at or "") >= started:
        return stored
    row = replace(named_row(plan), status="failed", error=str(error))
    with suppress(ArtifactError):  # then the error is that it cannot be stored
        store.write_row(out, row)
    return row


@contextmanager
def _bars(shown: bool) -> Iterator[None]:
    """Without them, if they would overwrite each other: what this process starts inherits that."""
    before = os.environ.get(_NO_BARS)
    if not shown:
        os.environ[_NO_BARS] = "1"
    try:
        yield
    finally:
        os.environ.pop(_NO_BARS, None)
        if before is not None:
            os.environ[_NO_BARS] = before


def _announce(plans: list[Plan], index: int, say: Say) -> None:
    where = f"[{index + 1}/{len(plans)}] " if len(plans) > 1 else ""
    say(f"{where}{plans[index].run_id}: {plans[index].recipe.name} on {plans[index].source.original.name}")


def _verdict(row: Row) -> str:
    return f": {row.status}" + (f": {row.error}" if row.error else "")


def _make_good(rows: dict[str, Row], plans: dict[str, Plan], out: Path, keep: Keep) -> None:
    """Make again what an earlier command did not keep and the front of this one needs."""
    if keep == "front":
        for row in front(rows.values()):
            if not row.artifact:
                rows[row.run_id] = run_plan(plans[row.run_id], out)


def _remark(plan: Plan, told: set[str], say: Say) -> None:
    """Say once what a recipe leaves out of this model or its texts, and what its stages leave alone if that is much."""
    alone = plan.recipe.remainder(plan.source.checkpoint.outline)
    dropped = plan.source.dropped
    overlap = f"{dropped} of the calibration texts are measured on too, and not calibrated on" if dropped else None
    for remark in (*plan.recipe.left_out, overlap, alone.warning if alone else None):
        line = f"{plan.recipe.name} on {plan.source.original.name}: {remark}"
        if remark is not None and line not in told:
            say(line)
            told.add(line)


def _warn(recipe: Recipe, say: Say) -> None:
    for step in recipe.steps:
        if step.warning:
            say(step.warning)
