"""Inputs of a linear module removed, the least needed first, and what is left fitted to stand in for them.

Optimal Brain Surgeon over whole columns, in the metric of the Fisher information: Hassibi and Stork, Second Order
Derivatives for Network Pruning (1993); Kurtic et al., ZipLM (2023).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from optimizer.stages.curvature import Curvature

_DAMPING = 1e-2  # of the mean diagonal: the moments rest on a few thousand tokens
_CANDIDATES = 4  # times as many as go at once are looked at
MOST = 0.9  # of the inputs; the last ones are never worth their removal

Change = Callable[[Tensor], Tensor]
"""What a weight or a bias becomes."""


@dataclass(frozen=True)
class Removal:
    """Inputs that go together, and the divergence in nats that this adds to what went before."""

    columns: Tensor
    loss: float


def removals(weight: Tensor, curvature: Curvature, size: int, together: int) -> list[Removal]:
    """The inputs of a weight `[out, in]` in the order in which to remove them.

    They go by units of `size` that follow each other, `together` units at a time; more than one only of size 1.
    """
    inverse = torch.linalg.inv(_damped(curvature.inputs))
    values, vectors = torch.linalg.eigh(curvature.gradients)
    left = (vectors * values.clamp_min(0).sqrt()).T @ weight.double()
    units = torch.arange(weight.shape[1]).reshape(-1, size)
    alive = torch.ones(len(units), dtype=torch.bool)
    found = []
    for _ in range(int(len(units) * MOST) // together):
        costs = _costs(left, inverse, units).masked_fill(~alive, torch.inf)
        chosen = costs.topk(min(together * _CANDIDATES, int(alive.sum())), largest=False).indices
        if together < len(chosen):
            chosen = chosen[_one_by_one(left, inverse, units[chosen, 0], together)] if size == 1 else chosen[:1]
        columns = units[chosen].flatten().sort().values
        block = torch.linalg.inv(inverse[columns][:, columns])
        moved = left[:, columns] @ block
        found.append(Removal(columns, 0.5 * (moved * left[:, columns]).sum().item()))
        left -= moved @ inverse[columns]
        inverse -= inverse[:, columns] @ block @ inverse[columns]
        left[:, columns] = 0
        inverse[columns], inverse[:, columns] = 0, 0
        inverse[columns, columns] = 1
        alive[chosen] = False
    return found


def without(weight: Tensor, curvature: Curvature, columns: Tensor) -> Tensor:
    """The weight with zeros in these columns, the others fitted by least squares to give the same outputs."""
    kept = torch.ones(weight.shape[1], dtype=torch.bool)
    kept[columns] = False
    moments = _damped(curvature.inputs)
    fitted = torch.zeros_like(weight, dtype=torch.float64)
    fitted[:, kept] = torch.linalg.solve(moments[kept][:, kept], moments[kept] @ weight.double().T).T
    return fitted.to(weight.dtype)


def matrix(after: Tensor) -> Change:
    """What puts this in the place of a module's matrix and leaves its bias."""
    return lambda tensor: after.to(tensor.dtype) if tensor.ndim > 1 else tensor


def _damped(moments: Tensor) -> Tensor:
    mean = moments.diagonal().mean().clamp_min(torch.finfo(torch.float64).tiny)
    return moments + _DAMPING * mean * torch.eye(len(moments), dtype=torch.float64)


def _one_by_one(left: Tensor, inverse: Tensor, columns: Tensor, count: int) -> Tensor:
    """Places of `count` of these columns, each the cheapest once those before it are gone: twins do not go together."""
    left, inverse = left[:, columns].clone(), inverse[columns][:, columns].clone()
    gone = torch.zeros(len(columns), dtype=torch.bool)
    for _ in range(count):
        costs = (left.square().sum(0) / inverse.diagonal()).masked_fill(gone, torch.inf)
        place = int(costs.argmin())
        step = inverse[place] / inverse[place, place]
        left -= torch.outer(left[:, place], step)
        inverse -= torch.outer(inverse[:, place].clone(), step)
        left[:, place] = 0
        inverse[place], inverse[:, place], inverse[place, place] = 0, 0, 1
        gone[place] = True
    return gone.nonzero().flatten()


def _costs(left: Tensor, inverse: Tensor, units: Tensor) -> Tensor:
    """What removing each unit alone would add."""
    if units.shape[1] == 1:
        return 0.5 * left.square().sum(0) / inverse.diagonal()
    blocks = torch.linalg.inv(torch.stack([inverse[unit][:, unit] for unit in units]))
    parts = torch.stack([left[:, unit] for unit in units])
    costs: Tensor = 0.5 * ((parts @ blocks) * parts).sum((1, 2))
    return costs
