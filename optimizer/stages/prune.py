"""Pruning: set the weights that matter least to zero.

By magnitude: Han et al., Learning both Weights and Connections for Efficient Neural Networks (2015), without the
retraining; N:M patterns as in Mishra et al., Accelerating Sparse Deep Neural Networks (2021). By what calibration texts
show: Sun et al., A Simple and Effective Pruning Approach for Large Language Models (Wanda, 2023); Frantar and Alistarh,
SparseGPT (2023).
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, field_validator, model_validator

from optimizer.calibration.statistics import Linear
from optimizer.errors import StageError
from optimizer.model.outline import Outline
from optimizer.model.weight import Place, Weight, Weights
from optimizer.stages.sparse import PRUNERS, beyond, needed
from optimizer.stages.stage import Context, Knob, Stage, Transform, later

_LOW_BITS = 16
_LOW_VALUES = 1 << _LOW_BITS
_HIGH_VALUES = 1 << (31 - _LOW_BITS)  # of a float32's magnitude: 31 bits without the sign


class Prune(Stage):
    """Zeros for the `amount` (0 to 0.99) of smallest magnitudes, per tensor or over the whole model.

    `pattern` N:M keeps the N largest of every M neighbours along the input axis instead, and takes no amount.
    `criterion` wanda goes by magnitudes times those of the inputs they meet, within each output; sparsegpt has the
    weights that stay make up for those that go. Both need calibration texts; what is no linear layer that these reach
    goes by magnitude. With `scope: model` they say too how much goes of each weight.
    """

    kind: ClassVar[str] = "prune"
    knob: ClassVar[Knob] = Knob(
        "pruning_amount",
        "amount",
        much=0.5,
        warning="pruning above 0.5 often costs much accuracy; look at the agreement",
    )

    amount: float | None = Field(default=None, ge=0, le=0.99)
    scope: Literal["tensor", "model"] = "tensor"
    pattern: str = "unstructured"
    criterion: Literal["magnitude", "wanda", "sparsegpt"] = later("magnitude")

    @field_validator("pattern", mode="before")
    @classmethod
    def _sexagesimal(cls, pattern: Any) -> Any:
        # YAML 1.1 reads an unquoted 2:4 as a number to the base of 60.
        if isinstance(pattern, int) and not isinstance(pattern, bool):
            return f"{pattern // 60}:{pattern % 60}"
        return pattern

    @field_validator("pattern")
    @classmethod
    def _known(cls, pattern: str) -> str:
        if pattern == "unstructured":
            return pattern
        keep, colon, group = pattern.partition(":")
        if not (colon and keep.isdecimal() and group.isdecimal() and 0 < int(keep) < int(group)):
            raise ValueError("write unstructured, or N:M with N below M, such as 2:4")
        return pattern

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if self.pattern == "unstructured":
            if self.amount is None:
                raise ValueError("amount: is required; write amount: 0.3")
        elif self.amount is not None:
            raise ValueError(f"pattern: {self.pattern} already says how much is pruned; remove amount")
        elif self.scope == "model":
            raise ValueError(f"pattern: {self.pattern} is a matter of each tensor; remove scope: model")
        return self

    @property
    def calibrated(self) -> bool:
        """Where the texts say what matters."""
        return self.criterion != "magnitude"

    def outline(self, before: Outline, routed: Mapping[str, Place]) -> Outline:
        """As before; an N:M pattern must divide the input axes."""
        if self.pattern != "unstructured":
            _, group = _parts(self.pattern)
            for name, place in routed.items():
                if fault := _misfit(before.entries[name].shape, group, place.input_axis):
                    raise StageError(f"{name}: {fault}; leave it out with skip: ['{name}']")
        return before

    def prepare(self, weights: Weights, context: Context) -> Transform:
        """Reads the routed weights only for `scope: model`: twice, and once more to share out ties."""
        if self.criterion != "magnitude":
            return self._by_texts(weights, context)
        return self._by_magnitude(weights)

    def _by_texts(self, weights: Weights, context: Context) -> Transform:
        reached = _reached(context)
        if others := [name for name, of in reached.items() if of is None]:
            context.log(f"prune: no text reaches these, so they are pruned by magnitude: {', '.join(others)}")
        by_magnitude = self.model_copy(update={"scope": "tensor"})._by_magnitude(weights)
        amounts = self._amounts(weights, reached)

        def transform(weight: Weight) -> Iterable[Weight]:
            of = reached[weight.name]
            if of is None:
                return by_magnitude(weight)
            values = weight.tensor.movedim(weight.input_axis, -1)
            keep, group = (None, 1) if self.pattern == "unstructured" else _parts(self.pattern)
            pruned = PRUNERS[self.criterion](values.double(), of, amounts.get(weight.name, self.amount), keep, group)
            return [weight.with_tensor(pruned.to(weight.tensor.dtype).movedim(-1, weight.input_axis).contiguous())]

        return transform

    def _amounts(self, weights: Weights, reached: Mapping[str, Linear | None]) -> dict[str, float]:
        """What goes of each weight where `amount` is that of the whole model: what the answers need least of all."""
        if self.scope == "tensor" or self.amount is None:
            return {}

        def scored() -> Iterator[Weight]:
            for weight in weights():
                if (of := reached[weight.name]) is not None:
                    yield weight.with_tensor(needed(weight.tensor.movedim(weight.input_axis, -1), of))

        limit, ties = model_limit(scored, self.amount)
        return {
            weight.name: (int((_magnitudes(weight.tensor) < limit).sum()) + ties[weight.name]) / weight.tensor.numel()
            for weight in scored()
        }

    def _by_magnitude(self, weights: Weights) -> Transform:
        if self.pattern != "unstructured":
            keep, group = _parts(self.pattern)
            return lambda weight: [weight.with_tensor(prune_pattern(weight.tensor, keep, group, weight.input_axis))]
        assert self.amount is not None
        amount = self.amount
        if self.scope == "tensor":
            return lambda weight: [weight.with_tensor(prune(weight.tensor, amount))]
        limit, ties = model_limit(weights, amount)
        return lambda weight: [weight.with_tensor(_zero_up_to(weight.tensor, limit, ties[weight.name]))]


def _reached(context: Context) -> dict[str, Linear | None]:
    """What the texts show of each routed weight; None of what is no matrix of a linear layer that they reach."""
    known = context.statistics().linear
    found: dict[str, Linear | None] = {}
    for name, place in context.routed.items():
        of, shape = known.get(place.module), [*context.outline.entries[name].shape]
        inputs = shape.pop(place.input_axis)
        found[name] = of if of is not None and of.fits([*shape, inputs]) else None
    return found


def prune(tensor: torch.Tensor, amount: float) -> torch.Tensor:
    """A copy in which exactly round(amount * numel) values, the smallest in magnitude, are zero (or were already).

    Of equal magnitudes the first in memory order go first; NaN counts as larger than every number.
    """
    count = round(amount * tensor.numel())
    if count == 0:
        return tensor.clone()
    magnitudes = _magnitudes(tensor)
    limit = magnitudes.kthvalue(count).values
    return _zero_up_to(tensor, int(limit), count - int((magnitudes < limit).sum()))


def prune_pattern(tensor: torch.Tensor, keep: int, group: int, axis: int) -> torch.Tensor:
    """A copy that keeps the `keep` largest of every `group` neighbours along `axis`; of equal ones the last go on.

    The axis must be a multiple of `group` long.
    """
    moved = tensor.movedim(axis, -1).contiguous()
    mask = beyond(_magnitudes(moved).reshape(moved.shape), keep, group)
    return moved.masked_fill(mask, 0).movedim(-1, axis).contiguous()


def model_limit(weights: Weights, amount: float) -> tuple[int, dict[str, int]]:
    """The magnitude (as `_magnitudes` codes it) up to which a model is pruned, and how many ties each weight gives.

    Exact in bounded memory: a histogram over the upper bits of the magnitudes, then one inside the bin that holds
    the limit.
    """
    high = torch.zeros(_HIGH_VALUES, dtype=torch.int64)
    for weight in weights():
        high += torch.bincount(_magnitudes(weight.tensor) >> _LOW_BITS, minlength=_HIGH_VALUES)
    count = round(amount * int(high.sum()))
    if count == 0:
        return 0, {weight.name: 0 for weight in weights()}
    bin_, below = _bin_of(high, count)
    low = torch.zeros(_LOW_VALUES, dtype=torch.int64)
    for weight in weights():
        magnitudes = _magnitudes(weight.tensor)
        inside = magnitudes[magnitudes >> _LOW_BITS == bin_]
        low += torch.bincount(inside & (_LOW_VALUES - 1), minlength=_LOW_VALUES)
    value, below_in_bin = _bin_of(low, count - below)
    limit = bin_ << _LOW_BITS | value
    return limit, dict(_share_ties(weights, limit, count - below - below_in_bin))


def _share_ties(weights: Weights, limit: int, left: int) -> Iterator[tuple[str, int]]:
    for weight in weights():
        ties = min(left, int((_magnitudes(weight.tensor) == limit).sum()))
        left -= ties
        yield weight.name, ties


def _bin_of(histogram: torch.Tensor, count: int) -> tuple[int, int]:
    """The bin that holds the `count`-th smallest, and how many lie in the bins before it."""
    total = histogram.cumsum(0)
    bin_ = int(torch.searchsorted(total, count))
    return bin_, int(total[bin_] - histogram[bin_])


def _magnitudes(tensor: torch.Tensor) -> torch.Tensor:
    """Magnitudes as flat int32 codes in the same order: a float's bits without the sign grow with its magnitude."""
    return tensor.detach().float().flatten().view(torch.int32) & 0x7FFFFFFF


def _zero_up_to(tensor: torch.Tensor, limit: int, ties: int) -> torch.Tensor:
    """A copy with zeros for all magnitudes below `limit` and the first `ties` of those equal to it."""
    magnitudes = _magnitudes(tensor)
    mask = magnitudes < limit
    if ties:
        equal = (magnitudes == limit).nonzero().flatten()
        mask[equal[:ties]] = True
    return tensor.masked_fill(mask.reshape(tensor.shape), 0)


def _parts(pattern: str) -> tuple[int, int]:
    """N and M of an N:M pattern."""
    keep, _, group = pattern.partition(":")
    return int(keep), int(group)


def _misfit(shape: tuple[int, ...], group: int, axis: int) -> str | None:
    """Why groups cannot be told along the input axis of a tensor, None if they can."""
    if not shape:
        return "it is a single value without an input axis"
    return f"its input axis of {shape[axis]} is no multiple of {group}" if shape[axis] % group else None
