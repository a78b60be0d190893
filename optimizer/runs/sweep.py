"""Many runs of one command: all are planned before the first starts, and none stops the others."""

import os
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from optimizer.errors import ArtifactError, OptimizerError
from optimizer.evaluation.predict import counted
from optimizer.evaluation.sample_size import too_few
from optimizer.launchers import Basic, Launcher
from optimizer.processes import process
from optimizer.recipe import Recipe
from optimizer.rows import store
from optimizer.rows.front import front
from optimizer.rows.row import Row
from optimizer.runs.outlook import check_keep, check_out
from optimizer.runs.plan import Plan, failed_row, named_row, plan_all
from optimizer.runs.run import Keep, Track, drop_artifact, forget_failure, judge, stored
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
    track: Track | None = None,
) -> list[Row]:
    """Run every recipe once and return the rows in the order given; `say` takes a line for the screen.

    Finished runs are judged here, the others are spread by the `launcher` (default: one after the other). With `settle`
    False nothing is removed yet and results.csv may lack rows: the caller has more rows to weigh, calls `drop`, and
    assembles. Raises RecipeError when `out` cannot be written or has not the space, and the first OptimizerError when
    no recipe can be planned.
    """
    if not recipes:
        return []
    launcher = launcher or Basic()
    with store.assembled(out) if settle else nullcontext(), _bars(launcher.workers == 1):
        return _sweep(recipes, out, force, keep, settle, launcher, say, track)


def _sweep(
    recipes: list[Recipe],
    out: Path,
    force: bool,
    keep: Keep,
    settle: bool,
    launcher: Launcher,
    say: Say,
    track: Track | None,
) -> list[Row]:
    if any(recipe.evaluation.examples != 0 or recipe.evaluation.repetitions for recipe in recipes):
        process.warm_up()  # its imports take seconds, which planning can cover
    check_keep(recipes, keep)
    planned = plan_all(recipes, out)
    plans = _by_id(planned)
    found = {} if force else {name: row for name, plan in plans.items() if (row := stored(plan, out, keep, say))}
    to_do = [plan for name, plan in plans.items() if name not in found]
    check_out(to_do, out, force, keep, launcher.workers)
    rows = _begun(recipes, planned, found, out, say)
    store.follow(out)
    if settle:
        drop(rows, out, keep)
    with closing(_spread(to_do, out, force, keep, launcher, say, track)) as finished:
        for row in finished:
            rows[row.run_id] = row
            store.follow(out)
            if settle:
                drop(rows, out, keep)
    if settle:
        _make_good(rows, plans, out, keep)
    return list(rows.values())


def _by_id(planned: list[Plan | OptimizerError]) -> dict[str, Plan]:
    plans: dict[str, Plan] = {}
    for plan in planned:
        if isinstance(plan, Plan):
            plans.setdefault(plan.run_id, plan)
    return plans


def _begun(
    recipes: list[Recipe], planned: list[Plan | OptimizerError], found: Mapping[str, Row], out: Path, say: Say
) -> dict[str, Row]:
    """The rows of all runs so far: `found` ones judged, those that cannot be planned stored as failed, others blank."""
    rows: dict[str, Row] = {}
    say_once = once(say)
    for recipe, plan in zip(recipes, planned, strict=True):
        _warn(recipe, say_once)
        if isinstance(plan, OptimizerError):
            row = failed_row(recipe, plan)
            store.write_row(out, row)
            say(f"{row.run_id}: failed: {row.error}")
            rows[row.run_id] = row
        elif plan.run_id not in rows:
            rows[plan.run_id] = named_row(plan)
            if plan.run_id in found:
                row = rows[plan.run_id] = _judged(plan, out, found[plan.run_id])
                say(f"{row.run_id}: finished before{_verdict(row)}")
            forget_failure(recipe, out)
            _remark(plan, say_once)
    counts = Counter(plan.run_id for plan in planned if isinstance(plan, Plan))
    for run_id, count in counts.items():
        if count > 1:
            say(f"{run_id}: {count} combinations come to this run, which is run once")
    return rows


def _judged(plan: Plan, out: Path, row: Row) -> Row:
    try:
        return judge(plan, out, row)
    except ArtifactError as error:
        return replace(row, status="failed", error=str(error))


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
    plans: list[Plan], out: Path, force: bool, keep: Keep, launcher: Launcher, say: Say, track: Track | None
) -> Generator[Row, None, None]:
    """The rows of the runs as they finish."""
    if not plans:
        return
    started = datetime.now(UTC).isoformat(timespec="milliseconds")
    run = partial(run_plan, out=out.resolve(), force=force, keep=keep, track=track)
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


def once(say: Say) -> Say:
    """`say` for lines that it has not been given yet."""
    told: set[str] = set()

    def say_once(line: str) -> None:
        if line not in told:
            told.add(line)
            say(line)

    return say_once


def _remark(plan: Plan, say: Say) -> None:
    """Say what a recipe leaves out of this model or its texts, and what its stages leave alone if that is much."""
    alone = plan.recipe.remainder(plan.source.checkpoint.outline)
    dropped = plan.source.dropped
    overlap = f"{dropped} of the calibration texts are measured on too, and not calibrated on" if dropped else None
    remarks = *plan.recipe.left_out, overlap, alone.warning if alone else None, *_too_few(plan)
    for remark in remarks:
        if remark is not None:
            say(f"{plan.recipe.name} on {plan.source.original.name}: {remark}")


def _too_few(plan: Plan) -> list[str]:
    """What its texts are too few for; where tokens are counted, nobody knows yet how many there are."""
    asked, given = plan.recipe.evaluation.examples, plan.source.examples
    if counted(plan.source.checkpoint.task) != "texts" or asked == 0:
        return []
    count = given if asked is None else min(asked, given)
    apart = plan.source.checkpoint.task == "encoder" and isinstance(plan.recipe.data.text, list)
    return too_few(plan.recipe.gates.bounds(), 2 * count if apart else count)  # of a pair each is embedded


def _warn(recipe: Recipe, say: Say) -> None:
    for step in recipe.steps:
        if step.warning:
            say(step.warning)
