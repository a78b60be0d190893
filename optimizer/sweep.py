"""Many runs of one command: all are planned before the first starts, and none stops the others."""

import os
from collections.abc import Callable
from pathlib import Path

from optimizer import pipeline, process, results
from optimizer.errors import OptimizerError, RecipeError
from optimizer.recipe import Recipe
from optimizer.results import Row

_MUCH_PRUNING = 0.5


def sweep(
    recipes: list[Recipe], out: Path, *, force: bool = False, say: Callable[[str], None] = lambda _: None
) -> list[Row]:
    """Run every recipe once and return the rows in the order given; `say` takes a line for the screen.

    Raises RecipeError when `out` cannot be written, and the first OptimizerError when no recipe can be planned.
    """
    _check_writable(out)
    if any(recipe.evaluation.examples != 0 or recipe.evaluation.repetitions for recipe in recipes):
        process.warm_up()  # its imports take seconds, which the first run's stages can cover
    plans = [_plan(recipe) for recipe in recipes]
    failures = [plan for plan in plans if isinstance(plan, OptimizerError)]
    if len(failures) == len(plans):
        raise failures[0]
    rows: dict[str, Row] = {}
    for number, (recipe, plan) in enumerate(zip(recipes, plans, strict=True), start=1):
        where = f"[{number}/{len(plans)}] " if len(plans) > 1 else ""
        _warn(recipe, say)
        if isinstance(plan, OptimizerError):
            row = pipeline.failed_row(recipe, plan)
            results.write_row(out, row)
        elif plan.run_id in rows:
            say(f"{where}{plan.run_id}: comes to the same run as an earlier combination")
            continue
        else:
            say(f"{where}{plan.run_id}: {recipe.name} on {plan.original.name}")
            row = pipeline.run(plan, out, force=force)
        if row["status"] != "ok":
            say(f"{where}{row['run_id']}: {row['status']}: {row['error']}")
        rows[row["run_id"]] = row
    return list(rows.values())


def _plan(recipe: Recipe) -> pipeline.Plan | OptimizerError:
    try:
        return pipeline.plan(recipe)
    except OptimizerError as error:
        return error


def _warn(recipe: Recipe, say: Callable[[str], None]) -> None:
    for step in recipe.steps:
        amount = getattr(step.stage, "amount", None)
        if amount is not None and amount > _MUCH_PRUNING:
            say(f"stages.{step.label}: pruning above {_MUCH_PRUNING} often costs much accuracy; look at the agreement")


def _check_writable(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / f".{os.getpid()}.partial"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise RecipeError(f"out: '{out}' cannot be written ({error.strerror or error}); write out=DIR") from None
