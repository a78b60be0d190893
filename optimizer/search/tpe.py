"""Proposals by tree-structured Parzen estimators, by Optuna.

Bergstra et al., Algorithms for Hyper-Parameter Optimization (2011); with constraints: Watanabe and Hutter, c-TPE
(2023).
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from optimizer.search.space import Range, Search, is_within
from optimizer.search.trials import Trial

_RANDOM_TRIALS = 6  # before the estimators have anything to go by


def propose(goal: Search, own: Mapping[str, Any], trials: Sequence[Trial], number: int) -> dict[str, Any]:
    """The values to try next: a Proposer, whose first are what the recipe itself says as far as that is in the ranges.

    A function of its arguments alone: Optuna keeps nothing between two calls, and is told all finished trials anew.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    seed = int(np.random.SeedSequence([goal.seed, number]).generate_state(1)[0])
    sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=_RANDOM_TRIALS)
    study = optuna.create_study(direction=goal.direction, sampler=sampler)
    space = {key: _distribution(span, own[key]) for key, span in goal.ranges.items()}
    study.add_trials([_frozen(trial, goal, space) for trial in trials])
    if not trials:
        within = {key: own[key] for key, span in goal.ranges.items() if is_within(own[key], span)}
        study.enqueue_trial(_encoded(within, goal))
    params = study.ask(space).params
    return {
        key: json.loads(params[key]) if isinstance(span, list) else params[key] for key, span in goal.ranges.items()
    }


def _distribution(span: Range | list[Any], own: Any) -> BaseDistribution:
    if isinstance(span, list):
        return CategoricalDistribution([json.dumps(choice) for choice in span])
    if span.is_whole(own):
        return IntDistribution(int(span.low), int(span.high), log=span.log, step=int(span.step or 1))
    return FloatDistribution(span.low, span.high, log=span.log, step=span.step)


def _encoded(values: Mapping[str, Any], goal: Search) -> dict[str, Any]:
    """Choices as JSON texts: Optuna takes no lists, and holds 1 and true for the same."""
    return {key: json.dumps(value) if isinstance(goal.ranges[key], list) else value for key, value in values.items()}


def _frozen(trial: Trial, goal: Search, space: Mapping[str, BaseDistribution]) -> optuna.trial.FrozenTrial:
    runs, failed = trial.row is None, trial.value is None
    return optuna.trial.create_trial(
        state=TrialState.RUNNING if runs else TrialState.FAIL if failed else TrialState.COMPLETE,
        params=_encoded(trial.values, goal),
        distributions=dict(space),
        value=trial.value,
        constraints=dict(trial.shortfalls),
    )
