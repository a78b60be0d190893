"""The trials of a search: a proposer says what to try, runs are made of it, what came of each is kept on disk."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from filelock import FileLock, Timeout

from optimizer.errors import ArtifactError, RecipeError
from optimizer.recipe import Recipe
from optimizer.rows.front import closeness, closeness_of, front, quality
from optimizer.rows.gates import Gates, shortfall
from optimizer.rows.row import STATUSES, Row
from optimizer.rows.verdict import subject
from optimizer.runs.plan import Plan, plan_all
from optimizer.search.space import Search, changed, itself, own_values

_ROUNDS = 4  # at least, however many run at once: each learns from those before it


@dataclass(frozen=True)
class Trial:
    """What was tried: `values` as proposed, for each key of the search's ranges, and what came of it.

    `row` is None while it runs; `value` is the figure that is sought after, None while there is none, for good if the
    run failed. `shortfalls` say for each gate by how much it was missed, at most 0 where it was met.
    """

    values: Mapping[str, Any]
    row: Row | None = None
    value: float | None = None
    shortfalls: Mapping[str, float] = field(default_factory=dict)


Proposer: TypeAlias = Callable[[Search, Mapping[str, Any], Sequence[Trial], int], Mapping[str, Any] | None]
"""The values to try next, from the goal, the recipe's own values, the trials so far and the number of this one.

None where nothing is left to try before those that run have ended; then the search ends if none runs.

A function of these alone, so that a search goes on after a restart as if there had been none.
"""


def search(
    recipe: Mapping[str, Any],
    goal: Search,
    propose: Proposer,
    run: Callable[[list[Recipe]], list[Row]],
    out: Path,
    say: Callable[[str], None],
    at_once: int,
    force: bool,
) -> list[Trial]:
    """Make the trials that are still to be made; all of them, best first; see `optimizer.search.search`."""
    assert at_once >= 1
    base = itself(recipe, goal)
    own = own_values(base)
    with _alone(_journal_path(goal, base, out), force) as journal:
        made, trials = _resumed(journal, recipe, goal, base.gates, run)
        if trials:
            say(f"search: {len(trials)} of {goal.trials} trials are there already: {journal}")
        while (left := goal.trials - len(trials)) > 0:
            asked: list[Trial] = []
            for _ in range(min(left, at_once, max(1, goal.trials // _ROUNDS))):
                values = propose(goal, own, [*trials, *asked], made + len(asked))
                if values is None:
                    break
                asked.append(Trial(values))
            if not asked:
                break
            made += len(asked)
            made_of = _rows([changed(recipe, rounded(trial)) for trial in asked], run)
            for trial, row in zip(asked, made_of, strict=True):
                trials.append(_told(trial, row, goal, base.gates))
                _note(journal, trials[-1])
                tried = _words(rounded(trial))
                say(f"search: trial {len(trials)} of {goal.trials}: {_outcome(row, goal)}; {tried}")
    return _ranked(trials, goal, say)


def rows(ranked: Sequence[Trial]) -> list[Row]:
    """Every run's row once, in the order of the trials."""
    return list({trial.row.run_id: trial.row for trial in ranked if trial.row is not None}.values())


def _told(trial: Trial, row: Row, goal: Search, gates: Gates) -> Trial:
    value = None if row.status == "failed" else getattr(row, goal.column)
    if value is None and row.status != "failed":
        raise RecipeError(
            f"search.{goal.direction}: {goal.column} is not measured for this model and these texts; "
            f"write {goal.direction}: size_ratio"
        )
    held = subject(row, gates)
    shortfalls = {gate: shortfall(gate, bound, held) for gate, bound in gates.bounds().items()}
    return Trial(trial.values, row, None if value is None or math.isnan(value) else value, shortfalls)


def _rows(recipes: list[Recipe], run: Callable[[list[Recipe]], list[Row]]) -> list[Row]:
    """A row for each recipe; those proposed twice are run once."""
    once = [recipe for place, recipe in enumerate(recipes) if recipe not in recipes[:place]]
    found = run(once)
    assert len(found) == len(once)
    return [found[once.index(recipe)] for recipe in recipes]


def rounded(trial: Trial) -> dict[str, Any]:
    """A trial's settings as a recipe has them: floats to six digits, which people can read and steps come out even."""
    return {key: float(f"{value:.6g}") if isinstance(value, float) else value for key, value in trial.values.items()}


def _journal_path(goal: Search, base: Recipe, out: Path) -> Path:
    """A file for each search: named by all that decides what a trial comes to and which is proposed next.

    The run's id stands for the stages, the original, the texts, what is measured, and the versions.
    """
    (planned,) = plan_all([base], out)
    assert isinstance(planned, Plan)  # what cannot be planned alone has been raised
    decisive = {
        "run": planned.run_id,
        "gates": base.gates.values(),
        # What is kept aside the texts tell, whose fingerprint is in the run's id.
        "search": goal.model_dump(exclude={"trials", "holdout", "otherwise", *({"by"} if goal.by == "tpe" else ())}),
    }
    digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:12]
    return out / "search" / f"{base.name}-{digest}.jsonl"


@contextmanager
def _alone(journal: Path, force: bool) -> Iterator[Path]:
    """Hold the journal, which no other process may at the same time; the lock dies with its process."""
    lock = FileLock(journal.with_suffix(".lock"))
    try:
        journal.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
        with journal.open("ab") as file:  # a killed process can leave a line without its end
            file.truncate(0 if force else journal.read_bytes().rfind(b"\n") + 1)
    except Timeout:
        raise RecipeError(
            f"search: another process is at this search ({journal}); wait for it, or write another out=DIR"
        ) from None
    except OSError as error:
        lock.release()
        raise _unwritable(journal, error) from None
    try:
        yield journal
    finally:
        lock.release()


def _note(journal: Path, trial: Trial) -> None:
    """One line for a trial that has ended."""
    assert trial.row is not None
    line = json.dumps({"values": trial.values, "value": trial.value, "run_id": trial.row.run_id})
    try:
        with journal.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
    except OSError as error:
        raise _unwritable(journal, error) from None


def _unwritable(journal: Path, error: OSError) -> RecipeError:
    return RecipeError(f"out: '{journal}' cannot be written ({error.strerror or error}); write out=DIR")


def _resumed(
    journal: Path, recipe: Mapping[str, Any], goal: Search, gates: Gates, run: Callable[[list[Recipe]], list[Row]]
) -> tuple[int, list[Trial]]:
    """How many trials earlier commands have made, and those to go on from: a run that is gone or damaged is done again.

    What failed is left out: it may have been the machine's fault.
    """
    try:
        lines = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
        noted = [Trial({key: line["values"][key] for key in goal.ranges}, value=line["value"]) for line in lines]
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{journal}: is damaged ({error}); remove it, or write force=true") from None
    known = [trial for trial in noted if trial.value is not None]
    found = _rows([changed(recipe, rounded(trial)) for trial in known], run) if known else []
    told = [_told(trial, row, goal, gates) for trial, row in zip(known, found, strict=True)]
    return len(noted), [trial for trial in told if trial.value is not None]


def _ranked(trials: Sequence[Trial], goal: Search, say: Callable[[str], None]) -> list[Trial]:
    """All that have ended, best first; says the best, and the rows that no other beats."""
    ranked = sorted((trial for trial in trials if trial.row is not None), key=lambda trial: rank(trial, goal))
    ended = rows(ranked)
    _say_best(ended[0], len(ranked), goal, _words(rounded(ranked[0])), say)
    for row in front(ended):
        say(f"front: {row.run_id}: {row.size_ratio:.2%} of the original's bytes, {closeness(row)} {quality(row):.4f}")
    return ranked


def rank(trial: Trial, goal: Search) -> tuple[int, float]:
    """What sorts trials that have ended, the best first: those that meet the gates before those that do not."""
    assert trial.row is not None
    place = STATUSES.index(trial.row.status)
    if trial.row.status == "rejected":
        return place, sum(max(0.0, miss) for miss in trial.shortfalls.values())
    if trial.value is None:
        return place, math.inf
    return place, trial.value if goal.direction == "minimize" else -trial.value


def _say_best(row: Row, count: int, goal: Search, settings: str, say: Callable[[str], None]) -> None:
    match row.status:
        case "ok":
            say(f"search: best of {count} trials: {row.run_id}: {_outcome(row, goal)}; {settings}")
        case "rejected":
            say(f"search: none of {count} trials meets the gates; nearest: {row.run_id}: {row.error}; {settings}")
        case _:
            say(f"search: all of {count} trials failed: {row.run_id}: {row.error}")


def _outcome(row: Row, goal: Search) -> str:
    if row.status == "failed":
        return f"failed: {row.error}"
    columns = dict.fromkeys((goal.column, *([] if quality(row) is None else [closeness_of(row)])))
    figures = ", ".join(f"{column} {getattr(row, column):.6g}" for column in columns)
    return figures if row.status == "ok" else f"{figures}, rejected"


def _words(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={json.dumps(value)}" for key, value in values.items())
