"""The command line's jobs as functions, for notebooks and other programs: rows as pandas frames."""

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas

from optimizer import command, launchers
from optimizer.command import Options
from optimizer.data.texts import DataSettings
from optimizer.errors import RecipeError
from optimizer.evaluation.job import Environment, EvaluationSettings
from optimizer.processes import interrupt
from optimizer.recipe import SEARCH, parse
from optimizer.report.page import write_report
from optimizer.rows.row import COLUMNS, Row
from optimizer.runs.comparing import compare as compare_directories
from optimizer.settings import build

Recipe = Mapping[str, Any]


def compose(*overrides: str) -> dict[str, Any]:
    """The recipe that the command line would run: `compose("recipe=aggressive", "model.path=DIR")`.

    Raises RecipeError for what the command line would refuse, and for what is no recipe's matter, such as `out=X`.
    """
    from optimizer.composing import COMMAND_KEYS, compose

    for override in overrides:
        _check_override(override)
    configs = compose(list(overrides))
    if len(configs) != 1:
        raise RecipeError(f"compose: {len(configs)} recipes; write a compose for each, and give them all to sweep")
    (config,) = configs
    return {key: value for key, value in config.items() if key not in COMMAND_KEYS}


def run(recipe: Recipe, *, out: str | Path = "outputs", force: bool = False) -> pandas.DataFrame:
    """Run one recipe, or search if it says so: a frame of one row, or of the search's rows, best first.

    A run that fails is a row whose `status` says so. Raises RecipeError for a wrong recipe.
    """
    if SEARCH not in recipe:
        return sweep([recipe], out=out, force=force)
    with interrupt.listening():
        options = build(Options, {"out": os.fspath(out), "force": force}, "")
        return _frame(command.search(recipe, options, launchers.parse(None)))


def sweep(
    recipes: Iterable[Recipe],
    *,
    out: str | Path = "outputs",
    force: bool = False,
    keep: str = "all",
    launcher: str | Mapping[str, Any] | None = None,
) -> pandas.DataFrame:
    """Run every recipe once: a frame with a row for each, in their order.

    `keep` is all, front or none; `launcher` the name of one, or its settings: {"launcher": "joblib", "n_jobs": 2}. All
    recipes are checked before the first starts: raises RecipeError for a wrong one.
    """
    if isinstance(launcher, str):
        launcher = {"launcher": launcher}
    if launcher is not None and not isinstance(launcher, Mapping):
        raise RecipeError(f"launcher: {launcher!r} is no mapping; write {{'launcher': 'joblib'}}")
    options = build(Options, {"out": os.fspath(out), "force": force, "keep": keep}, "")
    parsed = [parse(recipe) for recipe in recipes]
    with interrupt.listening():
        return _frame(command.sweep(parsed, options, launchers.parse(launcher)))


def compare(
    original: str | Path,
    optimized: Mapping[str, str | Path] | Sequence[str | Path],
    *,
    data: str | Path | Mapping[str, Any] | None = None,
    evaluation: Mapping[str, Any] | None = None,
    device: str = "cpu",
    threads: int | None = None,
    page: str | Path | None = None,
) -> pandas.DataFrame:
    """Measure model directories, whoever made them, against their original: a frame with a row for each.

    `optimized` names the directories, or lists them; `data` is a file of texts or a recipe's `data`; `page` a folder
    that gets the report. A directory that cannot be measured is a row whose `status` is failed. Raises an
    OptimizerError when one is not there, or the original or the texts cannot be read.
    """
    named = optimized if isinstance(optimized, Mapping) else _by_name(optimized)
    texts = data if isinstance(data, Mapping) or data is None else {"path": os.fspath(data)}
    given = {"device": device} | ({} if threads is None else {"threads": threads})
    with interrupt.listening(), tempfile.TemporaryDirectory() as cache:
        rows = compare_directories(
            os.fspath(original),
            {name: Path(place) for name, place in named.items()},
            Path(cache),
            build(DataSettings, dict(texts or {}), "data"),
            build(EvaluationSettings, dict(evaluation or {}), "evaluation"),
            build(Environment, given, ""),
        )
    if page is not None:
        write_report(rows, Path(page))
    return _frame(rows)


def _check_override(override: str) -> None:
    """Refuse what the command line takes beside a recipe: here it would be lost."""
    from optimizer.composing import COMMAND_KEYS, CONFIG_DIR_FLAGS, LAUNCHER

    name = override.lstrip("+~").partition("=")[0]
    if name.startswith("-") and name not in CONFIG_DIR_FLAGS:
        raise RecipeError(f"{name}: compose gives one recipe; write a compose for each, and give them all to sweep")
    if name.partition(".")[0] in COMMAND_KEYS:
        raise RecipeError(f"{name}: is no recipe's matter; leave it out, and see the arguments of run and sweep")
    if LAUNCHER.match(override):
        raise RecipeError("hydra/launcher: is no recipe's matter; write sweep(..., launcher='joblib')")


def _by_name(places: Sequence[str | Path]) -> dict[str, str | Path]:
    found: dict[str, str | Path] = {}
    for place in places:
        name = Path(place).name
        if name in found:
            raise RecipeError(f"optimized: two directories are called '{name}'; write {{name: directory, ...}}")
        found[name] = place
    return found


def _frame(rows: list[Row]) -> pandas.DataFrame:
    return pandas.DataFrame([row.values() for row in rows], columns=list(COLUMNS))
