"""What is known of a matrix as the steps of its rows and columns, which a price for a bit moves together.

A change E of a linear module's weight moves the answers by the sum over outputs of g E S E^T / 2, with g the Fisher
information of an output and S the second moments of the inputs (see `calibration.statistics`). At one price for a bit
everywhere, the step of a value is then in proportion to 1 / sqrt(g), and to 1 / l of its column, S = L L^T: WaterSIC,
arXiv 2603.04956.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import torch
from torch import Tensor

from optimizer.calibration.statistics import Linear, Rows, Statistics
from optimizer.errors import StageError
from optimizer.model.weight import Place, Weight, Weights
from optimizer.packing.grid import PER_OCTAVE
from optimizer.stages.feedback import factor_of

_ROUNDED = PER_OCTAVE // 4
"""Scales of rows and of columns are multiples of a quarter of an octave, against each other."""
_COARSEST = 1.5  # standard deviations of a row: beyond it nothing of it is left
_LOOKED_UP = PER_OCTAVE // 2
"""By how much coarser the rows of tables are than their gradients say: most of them a text never looks up."""
_PSEUDO = 4  # occurrences of a row with the mean gradient of all, beside its own
_HALF = 0.5  # of an occurrence: what a row that was never looked up counts
_NOTHING = 1e-12  # of the most that a row matters: what one that never matters counts
_SAMPLE = 16  # one row in so many is enough to tell where a search for the price begins
_LARGEST_BYTE = 127.49  # which is rounded to 127


@dataclass(frozen=True)
class Matrix:
    """A weight `[..., rows, columns]` with columns along its inputs, and what is known of it.

    Of the scales of rows `[..., rows, 1]` and columns `[..., 1, columns]` these are the exponents, 64ths of octaves;
    to those of rows that of the price is added, and they are at most `coarsest` then, at least `finest`. `factor` is
    L, float64, None where nothing is fed back.
    """

    name: str
    values: Tensor
    transposed: bool
    dtype: torch.dtype
    rows: Tensor
    columns: Tensor
    coarsest: Tensor
    finest: Tensor | None = None
    factor: Tensor | None = None
    is_known: bool = True

    def exponents(self, price: int) -> Tensor:
        """Those of its rows, at a price."""
        priced = torch.minimum(self.rows + price, self.coarsest)
        return priced if self.finest is None else torch.maximum(priced, self.finest)

    def coarser(self, steps: int) -> "Matrix":
        """The same with other steps, if nothing is known of it."""
        return self if self.is_known else replace(self, rows=self.rows + steps)

    def sample(self) -> "Matrix":
        """A few of its rows, without the feedback."""

        def few(side: Tensor) -> Tensor:
            whole = side.expand((*self.values.shape[:-1], side.shape[-1]))
            return whole.reshape(-1, side.shape[-1])[::_SAMPLE]

        return replace(
            self,
            values=few(self.values),
            rows=few(self.rows),
            columns=self.columns.reshape(-1, self.columns.shape[-1])[:1],
            coarsest=few(self.coarsest),
            finest=None if self.finest is None else few(self.finest),
            factor=None,
        )


def matrices(weights: Weights, places: Mapping[str, Place], known: Statistics) -> Iterator[Matrix]:
    """Every matrix of floats among the weights that has values; StageError for one that is not finite."""
    for weight in weights():
        if weight.tensor.ndim > 1 and weight.tensor.is_floating_point() and weight.tensor.numel():
            yield _matrix(weight, places[weight.name], known)


def _matrix(weight: Weight, place: Place, known: Statistics) -> Matrix:
    values = weight.tensor.float()
    if not torch.isfinite(values).all():
        raise StageError(f"{weight.name}: holds values that are not finite; leave it out with skip: ['{weight.name}']")
    transposed = place.role == "linear" and place.input_axis % values.ndim == values.ndim - 2
    values = values.mT if transposed else values
    linear, looked_up = known.linear.get(place.module), known.rows.get(place.module)
    if place.role == "linear" and linear is not None and linear.fits(values.shape):
        return _of_linear(weight, values, transposed, linear)
    if looked_up is not None and len(looked_up.seen) == len(values) and values.ndim == 2:
        return _of_rows(weight, values, looked_up, known.texts)
    spread = _spread(values).expand(*values.shape[:-1], 1)
    return Matrix(
        name=weight.name,
        values=values,
        transposed=transposed,
        dtype=weight.tensor.dtype,
        rows=_exponents(spread),
        columns=_ones(values),
        coarsest=_coarsest(spread),
        is_known=False,
    )


def usual_step(samples: Sequence[Matrix]) -> int:
    """By how much the steps of what is known differ from the standard deviations, in the middle of them."""
    apart = [
        float(sample.rows.double().median() + sample.columns.double().median())
        - float(_exponents(_spread(sample.values)))
        for sample in samples
        if sample.is_known
    ]
    return round(median(apart) / _ROUNDED) * _ROUNDED if apart else 0


def _of_linear(weight: Weight, values: Tensor, transposed: bool, known: Linear) -> Matrix:
    factor = factor_of(known.inputs)
    columns = _exponents(1 / factor.diagonal())[None]
    scaled = (values.double() * factor.diagonal()).square().mean(1).sqrt()
    return Matrix(
        name=weight.name,
        values=values,
        transposed=transposed,
        dtype=weight.tensor.dtype,
        rows=_exponents(known.needs.rsqrt())[:, None],
        columns=columns,
        coarsest=_coarsest(scaled)[:, None],
        factor=factor,
    )


def _of_rows(weight: Weight, values: Tensor, known: Rows, texts: int) -> Matrix:
    """Rows that are looked up: each by how often, and by the gradients where it was."""
    own, seen = known.gradients.double() * texts, known.seen.double() * texts
    mean = own.sum() / seen.sum().clamp_min(1)
    matters = torch.maximum((seen + _HALF) * (own + _PSEUDO * mean) / (seen + _PSEUDO), own) / texts
    rows = _exponents(matters.clamp_min(matters.max() * _NOTHING).rsqrt())[:, None] + _LOOKED_UP
    return Matrix(
        name=weight.name,
        values=values,
        transposed=False,
        dtype=weight.tensor.dtype,
        rows=rows,
        columns=_ones(values),
        coarsest=_coarsest(_spread(values)).expand(len(values), 1),
        finest=_within_8_bits(values),
    )


def _within_8_bits(values: Tensor) -> Tensor:
    """The least step of each row of which no code is beyond 127: an engine holds such codes as they are."""
    largest = values.abs().amax(1, keepdim=True).double().clamp_min(2.0**-100)
    return ((largest / _LARGEST_BYTE).log2() * PER_OCTAVE).ceil().to(torch.int32)


def _ones(values: Tensor) -> Tensor:
    return torch.zeros((*values.shape[:-2], 1, values.shape[-1]), dtype=torch.int32)


def _spread(values: Tensor) -> Tensor:
    return values.double().square().mean().sqrt()


def _coarsest(spread: Tensor) -> Tensor:
    return _exponents(_COARSEST * spread.clamp_min(torch.finfo(torch.float32).tiny))


def _exponents(scales: Tensor) -> Tensor:
    """The nearest exponents, each a multiple of a quarter of an octave."""
    parts = (scales.double().clamp(2.0**-100, 2.0**100).log2() * PER_OCTAVE / _ROUNDED).round() * _ROUNDED
    return parts.to(torch.int32)
