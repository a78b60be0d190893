"""Values of a matrix chosen one column after the other, each with what the choices before it have lost.

With S = L L^T the second moments of a layer's inputs, an error E of its weight moves its outputs by the squares of E L:
from the last column to the first, each can make up for what those after it have lost. Frantar et al., GPTQ (2023).
"""

from collections.abc import Callable

import torch
from torch import Tensor

_DAMPING = 0.05  # of the mean diagonal: the moments rest on a few thousand tokens
TOGETHER = 64
"""Columns of a block: what the choices in it have lost is handed on to the others at once."""

Choose = Callable[[int, Tensor], Tensor]
"""The values of a column, by its place and by what they were best."""
Begin = Callable[[int, Tensor], None]
"""What is told of each block of columns before its first one: where it starts, and what its values were best so far."""


def factor_of(moments: Tensor) -> Tensor:
    """The lower triangular L of second moments `[in, in]`, damped, in float64."""
    moments = moments.double()
    mean = moments.diagonal().mean().clamp_min(torch.finfo(torch.float64).tiny)
    factor: Tensor = torch.linalg.cholesky(moments + _DAMPING * mean * torch.eye(len(moments), dtype=torch.float64))
    return factor


def chosen(
    values: Tensor, factor: Tensor, choose: Choose, begin: Begin = lambda _, __: None, together: int = TOGETHER
) -> Tensor:
    """What `choose` makes of a matrix `[rows, columns]` in float64, whose inputs have this `factor`."""
    left, found = values @ factor, torch.empty_like(values)
    diagonal = factor.diagonal()
    for end in range(values.shape[1], 0, -together):
        start = max(0, end - together)
        block, corner = left[:, start:end].clone(), factor[start:end, start:end]
        own = values[:, start:end]
        begin(start, own + (block - own @ corner) / diagonal[start:end])
        for place in reversed(range(start, end)):
            made = choose(place, block[:, place - start] / diagonal[place])
            found[:, place] = made
            block[:, : place - start + 1] -= made[:, None] * factor[place, start : place + 1]
        left[:, :start] -= found[:, start:end] @ factor[start:end, :start]
    return found
