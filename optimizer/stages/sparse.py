"""A matrix made sparse by what calibration texts show of its inputs, and of how much its outputs matter.

Wanda: Sun et al., A Simple and Effective Pruning Approach for Large Language Models (2023). SparseGPT: Frantar and
Alistarh (2023), here with outputs weighed by the Fisher information, so that rows that matter less lose more.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from optimizer.calibration.statistics import Linear
from optimizer.stages.feedback import TOGETHER, chosen, factor_of


def needed(values: Tensor, known: Linear) -> Tensor:
    """How much the answers need each value of a matrix `[out, in]`, float32, alike for all matrices of a model."""
    return (values.double() * known.inputs.diagonal().double().sqrt() * known.needs.sqrt()[:, None]).float()


def wanda(values: Tensor, known: Linear, amount: float | None, keep: int | None = None, group: int = 1) -> Tensor:
    """A matrix `[out, in]` in float64 with the `amount` of each row zero, or all but `keep` of each `group`."""
    if keep is None:
        assert amount is not None
        keep, group = values.shape[1] - round(amount * values.shape[1]), values.shape[1]
    return values.masked_fill(beyond(values * known.inputs.diagonal().double().sqrt(), keep, group), 0)


def sparsegpt(values: Tensor, known: Linear, amount: float | None, keep: int | None = None, group: int = 1) -> Tensor:
    """A matrix `[out, in]` in float64 with the `amount` of its values zero, or all but `keep` of each `group`.

    Those go that the answers need least; the others are fitted.
    """
    factor, rows = factor_of(known.inputs), known.needs.sqrt()[:, None]
    together = max(1, TOGETHER // group) * group  # as many of these columns go as of the whole
    gone: dict[int, Tensor] = {}

    def begin(start: int, best: Tensor) -> None:
        scores = best * factor.diagonal()[start : start + best.shape[1]] * rows
        if keep is None:
            assert amount is not None
            done = values[:, start + best.shape[1] :].numel()
            count = round(amount * (done + best.numel())) - round(amount * done)
            mask = beyond(scores.reshape(1, -1), best.numel() - count, best.numel()).reshape(best.shape)
        else:
            mask = beyond(scores, keep, group)
        gone.update({start + place: mask[:, place] for place in range(best.shape[1])})

    return chosen(values, factor, lambda place, best: best.masked_fill(gone[place], 0), begin, together)


def beyond(scores: Tensor, keep: int, group: int) -> Tensor:
    """Where not the `keep` largest of each `group` along the last axis stand; of equal ones the last are kept."""
    order = scores.abs().reshape(-1, group).argsort(dim=1, stable=True)
    mask = torch.zeros_like(order, dtype=torch.bool)
    mask.scatter_(1, order[:, : group - keep], True)
    return mask.reshape(scores.shape)


PRUNERS: Mapping[str, Callable[[Tensor, Linear, float | None, int | None, int], Tensor]] = {
    "wanda": wanda,
    "sparsegpt": sparsegpt,
}
"""By criterion."""
