"""The search itself: Optuna proposes settings, runs are made of them, and what came of each is kept on disk.

Tree-structured Parzen estimators: Bergstra et al., Algorithms for Hyper-Parameter Optimization (2011); with
constraints: Watanabe and Hutter, c-TPE (2023).
"""

import fcntl
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from optimizer.errors import ArtifactError, RecipeError
from optimizer.recipe import Recipe
from optimizer.rows.front import front, quality
from optimizer.rows.gates import Gates, shortfall
from optimizer.rows.row import STATUSES, Row
from optimizer.runs.plan import plan
from optimizer.search.space import Range, Search, changed, is_within, own_values

_RANDOM_TRIALS = 6  # before the estimators have anything to go by
_ROUNDS = 4  # at least, however many run at once: each learns from those before it
_ROW = "row"


def search(
    recipe: Mapping[str, Any],
    goal: Search,
    run: Callable[[list[Recipe]], list[Row]],
    out: Path,
    say: Callable[[str], None],
    at_once: int,
    force: bool,
) -> list[Row]:
    """The trials that are still to be made, then the rows of all; see `optimizer.search.search`."""
    assert at_once >= 1
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    base = changed(recipe, {})
    with _alone(_journal(goal, base, out), force) as journal:
        saved = _saved(journal, goal)
        # Sampled in memory, and written once finished: what a killed process was at leaves no trace to clear away.
        study = optuna.create_study(direction=goal.direction)
        study.add_trials(_checked(saved, recipe, goal, run))
        if there := len(_trials(study)):
            say(f"search: {there} of {goal.trials} trials are there already: {journal}")
        while (left := goal.trials - len(_trials(study))) > 0:
            made = len(_trials(saved))
            count = min(left, at_once, max(1, goal.trials // _ROUNDS))
            trials = [_ask(study, made + more, goal, own_values(base)) for more in range(count)]
            recipes = [changed(recipe, _values(trial.params, goal)) for trial in trials]
            for trial, row in zip(trials, _rows(recipes, run), strict=True):
                saved.add_trial(_tell(study, trial, row, goal, base.gates))
                tried = _words(_values(trial.params, goal))
                say(f"search: trial {trial.number + 1} of {goal.trials}: {_outcome(row, goal)}; {tried}")
    return _result(study, goal, base.gates, say)


def _checked(
    saved: optuna.Study, recipe: Mapping[str, Any], goal: Search, run: Callable[[list[Recipe]], list[Row]]
) -> list[optuna.trial.FrozenTrial]:
    """The trials of earlier commands, whose runs are looked at again: a run that has gone or is damaged is done again.

    What failed is left out: it may have been the machine's fault.
    """
    trials = saved.get_trials(states=[TrialState.COMPLETE])
    rows = _rows([changed(recipe, _values(trial.params, goal)) for trial in trials], run) if trials else []
    for trial, row in zip(trials, rows, strict=True):
        trial.user_attrs = {**trial.user_attrs, _ROW: row.values()}
    return [trial for trial, row in zip(trials, rows, strict=True) if row.status != "failed"]


def _rows(recipes: list[Recipe], run: Callable[[list[Recipe]], list[Row]]) -> list[Row]:
    """A row for each recipe; those proposed twice are run once."""
    once = [recipe for place, recipe in enumerate(recipes) if recipe not in recipes[:place]]
    rows = run(once)
    assert len(rows) == len(once)
    return [rows[once.index(recipe)] for recipe in recipes]


def _journal(goal: Search, base: Recipe, out: Path) -> Path:
    """A file for each search: named by all that decides what a trial comes to and which is proposed next.

    The run's id stands for the stages, the original, the texts, what is measured, and the versions.
    """
    decisive = {
        "run": plan(base).run_id,
        "gates": base.gates.model_dump(),
        "search": goal.model_dump(exclude={"trials"}),
    }
    digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:12]
    return out / "search" / f"{base.name}-{digest}.journal"


@contextmanager
def _alone(journal: Path, force: bool) -> Iterator[Path]:
    """Hold the journal, which no other process may at the same time; the lock dies with its process."""
    try:
        journal.parent.mkdir(parents=True, exist_ok=True)
        file = journal.open("ab")
    except OSError as error:
        raise RecipeError(f"out: '{journal}' cannot be written ({error.strerror or error}); write out=DIR") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RecipeError(
                f"search: another process is at this search ({journal}); wait for it, or write another out=DIR"
            ) from None
        # What a killed process can leave: a line without its end, which Optuna would write on, and Optuna's own lock.
        file.truncate(0 if force else journal.read_bytes().rfind(b"\n") + 1)
        journal.with_name(f"{journal.name}.lock").unlink(missing_ok=True)
        yield journal


def _saved(journal: Path, goal: Search) -> optuna.Study:
    try:
        storage = JournalStorage(JournalFileBackend(str(journal)))
        return optuna.create_study(
            study_name=journal.stem, storage=storage, direction=goal.direction, load_if_exists=True
        )
    except (ValueError, KeyError) as error:
        raise ArtifactError(f"{journal}: is damaged ({error}); remove it, or write force=true") from None


def _ask(study: optuna.Study, number: int, goal: Search, own: Mapping[str, Any]) -> optuna.Trial:
    """The next proposal, a function of the seed, its number and the trials before it: the same after a restart.

    The first is what the recipe itself says, as far as that is within the ranges.
    """
    seed = int(np.random.SeedSequence([goal.seed, number]).generate_state(1)[0])
    study.sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=_RANDOM_TRIALS)
    if not _trials(study):
        within = {key: own[key] for key, span in goal.ranges.items() if is_within(own[key], span)}
        study.enqueue_trial({key: _encoded(value, goal.ranges[key]) for key, value in within.items()})
    return study.ask({key: _distribution(span, own[key]) for key, span in goal.ranges.items()})


def _trials(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return study.get_trials(deepcopy=False)


def _row(trial: optuna.trial.FrozenTrial) -> Row:
    row = Row.of(trial.user_attrs[_ROW])
    assert row is not None, "kept by _tell"
    return row


def _distribution(span: Range | list[Any], own: Any) -> BaseDistribution:
    if isinstance(span, list):
        return CategoricalDistribution([_encoded(choice, span) for choice in span])
    if span.is_whole(own):
        return IntDistribution(int(span.low), int(span.high), log=span.log, step=int(span.step or 1))
    return FloatDistribution(span.low, span.high, log=span.log, step=span.step)


def _encoded(value: Any, span: Range | list[Any]) -> Any:
    """Choices as JSON texts: Optuna takes no lists, and holds 1 and true for the same."""
    return json.dumps(value) if isinstance(span, list) else value


def _values(params: Mapping[str, Any], goal: Search) -> dict[str, Any]:
    """A trial's settings as a recipe has them; floats to six digits, which people can read and steps come out even."""
    return {key: _decoded(params[key], span) for key, span in goal.ranges.items()}


def _decoded(value: Any, span: Range | list[Any]) -> Any:
    if isinstance(span, list):
        return json.loads(value)
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _tell(study: optuna.Study, trial: optuna.Trial, row: Row, goal: Search, gates: Gates) -> optuna.trial.FrozenTrial:
    trial.set_user_attr(_ROW, row.values())
    if row.status == "failed":
        return study.tell(trial, state=TrialState.FAIL)
    value = getattr(row, goal.column)
    if value is None:
        raise RecipeError(
            f"search.{goal.direction}: {goal.column} is not measured for this model and these texts; "
            f"write {goal.direction}: size_ratio"
        )
    if math.isnan(value):
        return study.tell(trial, state=TrialState.FAIL)
    for gate, miss in _shortfalls(gates, row).items():
        trial.set_constraint(gate, miss)
    return study.tell(trial, value)


def _shortfalls(gates: Gates, row: Row) -> dict[str, float]:
    return {gate: shortfall(gate, bound, row) for gate, bound in gates.bounds().items()}


def _result(study: optuna.Study, goal: Search, gates: Gates, say: Callable[[str], None]) -> list[Row]:
    """Every run's row once, best first; says the best, and the rows that no other beats."""
    sign = 1 if goal.direction == "minimize" else -1

    def rank(trial: optuna.trial.FrozenTrial) -> tuple[int, float]:
        row = _row(trial)
        if row.status == "rejected":
            return STATUSES.index("rejected"), sum(max(0.0, miss) for miss in _shortfalls(gates, row).values())
        return STATUSES.index(row.status), math.inf if trial.value is None else sign * trial.value

    ranked = sorted(_trials(study), key=rank)
    rows = list({row.run_id: row for row in map(_row, ranked)}.values())
    _say_best(rows[0], len(ranked), goal, _words(_values(ranked[0].params, goal)), say)
    for row in front(rows):
        say(f"front: {row.run_id}: {row.size_ratio:.2%} of the original's bytes, {_closeness(row)}")
    return rows


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
    columns = dict.fromkeys((goal.column, *(["agreement"] if row.agreement is not None else [])))
    figures = ", ".join(f"{column} {getattr(row, column):.6g}" for column in columns)
    return figures if row.status == "ok" else f"{figures}, rejected"


def _closeness(row: Row) -> str:
    name = "cosine similarity" if row.agreement is None else "agreement"
    return f"{name} {quality(row):.4f}"


def _words(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={json.dumps(value)}" for key, value in values.items())
