"""What one command does with its recipes once they are composed: plan, run or search, then show."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from optimizer.errors import OptimizerError, lacking
from optimizer.launchers import Launcher
from optimizer.recipe import SEARCH, Recipe, parse
from optimizer.rows import store
from optimizer.rows.row import Row
from optimizer.runs import sweep as sweeps
from optimizer.runs.outlook import look_ahead
from optimizer.runs.run import Keep, failure
from optimizer.settings import Settings
from optimizer.tracking import tracker


class ReportSettings(Settings):
    """What else is written of the runs: with `junit` junit.xml, for build servers."""

    junit: bool = False


class Options(Settings):
    """What is not a recipe's matter: where runs go, whether they are done again, what stays, whether only to plan."""

    out: str = "outputs"
    force: bool = False
    keep: Keep = "all"
    plan: bool = False
    debug: bool = False
    report: ReportSettings = ReportSettings()
    track: str | None = None

    @property
    def folder(self) -> Path:
        """`out` as a path."""
        return Path(self.out).expanduser()


def execute(configs: list[dict[str, Any]], options: Options, launcher: Launcher) -> int:
    """Do what the command asks for and print it; the exit code is 0 when all is well, else 1.

    Raises an OptimizerError when the command or a recipe is wrong.
    """
    recipes = [parse(config) for config in configs if SEARCH not in config]
    searches = [config for config in configs if SEARCH in config]
    if options.plan:
        return 0 if _show_plan(recipes, searches, options) else 1
    rows = sweep(recipes, options, launcher)
    results = list(rows)  # of a search what it has come to: that trials miss their gates is its way
    for config in searches:
        found = search(config, options, launcher)
        results.append(found[0])
        rows += found
    good = all(row.status == "ok" for row in results)
    if options.report.junit:
        from optimizer.report.junit import write_junit

        write_junit(results, options.folder)
    return 0 if _show(rows, options.folder) and good else 1


def sweep(
    recipes: list[Recipe],
    options: Options,
    launcher: Launcher,
    *,
    settle: bool = True,
    say: Callable[[str], None] | None = None,
) -> list[Row]:
    """Run every recipe and say on stderr how it goes, with `debug` tracebacks too; `settle` as for `sweeps.sweep`."""
    rows = sweeps.sweep(
        recipes,
        options.folder,
        force=options.force,
        keep=options.keep,
        settle=settle,
        launcher=launcher,
        say=say or print_line,
        track=tracker(options.track),
    )
    if options.debug:
        for row in rows:
            if row.status == "failed" and (origin := failure(row.run_id, options.folder)):
                print_line(origin)
    return rows


def search(recipe: Mapping[str, Any], options: Options, launcher: Launcher) -> list[Row]:
    """Search as the recipe says, best run first."""
    from optimizer.search import search as find

    out, keep = options.folder, options.keep
    tried: list[Recipe] = []
    seen: dict[str, Row] = {}
    say = sweeps.once(print_line)  # what is said of every trial

    def run(recipes: list[Recipe]) -> list[Row]:
        rows = sweep(recipes, options, launcher, settle=False, say=say)
        tried.extend(recipes)
        seen.update({row.run_id: row for row in rows})
        sweeps.drop(seen, out, keep)
        return rows

    with store.assembled(out):
        order = [row.run_id for row in find(recipe, run, out, print_line, launcher.workers, force=options.force)]
    # All trials at once: what an earlier command did not keep and their front needs is made again.
    rows = {row.run_id: row for row in sweeps.sweep(tried, out, keep=keep)}
    return [rows[run_id] for run_id in order]


def print_line(line: str) -> None:
    """Say it on stderr: stdout is for the table."""
    print(line, file=sys.stderr)


def _show_plan(recipes: list[Recipe], searches: list[dict[str, Any]], options: Options) -> bool:
    """Whether all that is planned can run."""
    from optimizer.report.plan import show_plan
    from optimizer.search import settings

    runs = look_ahead(recipes, options.folder, force=options.force, keep=options.keep)
    trials = {config["name"]: settings(config).trials for config in searches}
    show_plan(runs, trials, options.folder)
    return all(run.fault is None for run in runs)


def _show(rows: list[Row], out: Path) -> bool:
    from optimizer.report.table import show

    page, failed = None, None
    if len(rows) > 1:
        try:
            from optimizer.report.page import write_report

            page = write_report(store.assemble(out), out)  # before the table, which may find nobody who reads it
        except ModuleNotFoundError as error:  # a part that need not be there
            print_line(f"no page: {lacking(error, 'report')}")
        except OptimizerError as error:
            failed = error
    show(rows, out)
    if page:
        print(f"page: {page}")
    if failed:
        print_line(f"optimizer: {failed}")
    return failed is None
