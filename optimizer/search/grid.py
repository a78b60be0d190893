"""Proposals in the written order: every combination of the ranges, once."""

from collections.abc import Mapping, Sequence
from typing import Any

from optimizer.search.space import Search
from optimizer.search.trials import Proposer, Trial


def proposer(combinations: Sequence[Mapping[str, Any]]) -> Proposer:
    """A Proposer of the first combination that no trial has."""

    def propose(goal: Search, own: Mapping[str, Any], trials: Sequence[Trial], number: int) -> Mapping[str, Any]:
        tried = [trial.values for trial in trials]
        return next(combination for combination in combinations if combination not in tried)

    return propose
