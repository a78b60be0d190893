"""Proposals in the written order: every combination of the ranges once, or the ranges in turn."""

from collections.abc import Mapping, Sequence
from typing import Any

from optimizer.search.space import Search, choices
from optimizer.search.trials import Proposer, Trial, rank

Combinations = Sequence[Mapping[str, Any]]


def proposer(combinations: Combinations) -> Proposer:
    """A Proposer of the first combination that no trial has."""

    def propose(goal: Search, own: Mapping[str, Any], trials: Sequence[Trial], number: int) -> Mapping[str, Any] | None:
        return _untried(combinations, trials)

    return propose


def in_turns(combinations: Combinations) -> Proposer:
    """A Proposer of each choice of one range beside the best of the ranges before it and the first of those after it.

    What is no combination is left out. Coordinate descent, one round of it.
    """

    def propose(goal: Search, own: Mapping[str, Any], trials: Sequence[Trial], number: int) -> Mapping[str, Any] | None:
        spans = {key: choices(key, span) for key, span in goal.ranges.items()}
        best: Mapping[str, Any] = {key: span[0] for key, span in spans.items()}
        for key, span in spans.items():
            turn = [values for choice in span if (values := {**best, key: choice}) in combinations]
            if (untried := _untried(turn, trials)) is not None:
                return untried
            made = [trial for trial in trials if trial.values in turn]
            if any(trial.row is None for trial in made):
                return None  # its turn is not over
            if made:
                best = min(made, key=lambda trial: rank(trial, goal)).values
        return None

    return propose


def _untried(combinations: Combinations, trials: Sequence[Trial]) -> Mapping[str, Any] | None:
    tried = [trial.values for trial in trials]
    return next((combination for combination in combinations if combination not in tried), None)
