"""What products of matrices cost on this machine, at several widths: ZipLM's table (Kurtic et al., 2023)."""

import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Literal, get_args

import numpy as np
import torch

Arithmetic = Literal["int8", "bfloat16", "float32"]
"""What the products are of: what an engine that runs the model multiplies in."""

_ROWS = 1024  # tokens of a batch
_RUNS, _SECONDS = 7, 0.02
_POINTS = 6
_LEAST = 0.1  # of what a proportional saving would be: noise may not say that less work saves nothing
assert set(get_args(Arithmetic)) == {"int8", "bfloat16", "float32"}


def seconds_saved(cost: Callable[[int], float], width: int, removed: Sequence[int]) -> list[float]:
    """What a block saves for each token by so many of its `width` inputs less; more for more.

    `cost` gives the seconds a token at a width. It is asked at a few widths, from the whole to the narrowest, and what
    lies between is interpolated: of a single step the noise is larger than what it saves.
    """
    narrowest = width - max(removed, default=0)
    asked = np.unique(np.linspace(narrowest, width, _POINTS).round().astype(int))
    known = np.maximum.accumulate([cost(int(each)) for each in asked])
    whole = float(known[-1])
    least = _LEAST * whole / width
    return [max(least * each, whole - float(np.interp(width - each, asked, known))) for each in removed]


@cache
def seconds_a_token(arithmetic: Arithmetic, inner: int, columns: int) -> float:
    """Of a product [tokens, inner] x [inner, columns], the fastest of several runs; 0 where there is nothing to do."""
    if not inner or not columns:
        return 0.0
    left, right = _matrix(arithmetic, _ROWS, inner), _matrix(arithmetic, inner, columns)
    multiply = torch._int_mm if arithmetic == "int8" else torch.mm
    multiply(left, right)
    taken, end = list[float](), time.perf_counter() + _SECONDS
    while len(taken) < _RUNS or time.perf_counter() < end:
        start = time.perf_counter()
        multiply(left, right)
        taken.append(time.perf_counter() - start)
    return min(taken) / _ROWS


def _matrix(arithmetic: Arithmetic, rows: int, columns: int) -> torch.Tensor:
    if arithmetic == "int8":
        return torch.ones(rows, columns, dtype=torch.int8)
    return torch.ones(rows, columns, dtype=getattr(torch, arithmetic))
