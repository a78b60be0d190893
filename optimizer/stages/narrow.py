"""Neurons and heads that the answers need least are set to zero, what is left stands in for them.

Chosen by the divergence that they cost for each multiply-add that they save: Kwon et al., A Fast Post-Training Pruning
Framework for Transformers (2022); Kurtic et al., ZipLM (2023). Shapes stay, so anything loads the outcome; the formats
that an engine runs leave out what is zero. With one width for every layer, shapes get smaller instead.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from operator import mul
from typing import Any, ClassVar, Self

import torch
from pydantic import Field, model_validator

from optimizer.errors import NothingToDo
from optimizer.model.blocks import Block, blocks
from optimizer.model.examples import FEW, tokens
from optimizer.model.outline import Outline
from optimizer.model.weight import Place, Weight, Weights
from optimizer.stages import uniform
from optimizer.stages.curvature import Curvature, curvatures
from optimizer.stages.elimination import Change, Removal, matrix, removals, without
from optimizer.stages.latency_table import Arithmetic, seconds_a_token, seconds_saved
from optimizer.stages.stage import Context, Stage, Transform

_TOGETHER = 32  # neurons: engines multiply in multiples of it
_AHEAD = 4  # removals that may be taken at once, where a dear one is followed by cheap ones


class Narrow(Stage):
    """Saves `amount` (0 to 0.9) of the multiply-adds of an encoder's layers; `heads` says whether heads may go too.

    With `measure` the work is seconds on this machine, of products in that arithmetic, in place of multiply-adds. What
    it keeps is fitted to the calibration texts, which it needs. `uniform` takes neurons alone, as many from every
    layer, out of the tensors and out of config.json: a smaller model, which whatever loads the original loads.
    """

    kind: ClassVar[str] = "narrow"

    amount: float = Field(ge=0, le=0.9, allow_inf_nan=False)
    heads: bool = True
    uniform: bool = False
    measure: Arithmetic | None = None

    @model_validator(mode="after")
    def _neurons_alone(self) -> Self:
        if self.uniform and self.heads:
            raise ValueError("uniform takes no heads; write heads: false beside it")
        if self.uniform and self.measure:
            raise ValueError("uniform takes as many neurons everywhere, so nothing is to measure; remove measure")
        return self

    @property
    def calibrated(self) -> bool:
        """Always: the texts say what is needed least."""
        return True

    def outline(self, before: Outline, routed: Mapping[str, Place]) -> Outline:
        """As before, or with fewer neurons in every layer; there must be a layer that it knows, its matrices routed."""
        found = _blocks(before, routed)
        if before.config and not found:
            raise NothingToDo(f"it knows no layer of a '{before.config.get('model_type')}' model among these weights")
        if not self.uniform or not self.amount or not found:
            return before
        neurons = uniform.neurons_of_all_layers(before, found)
        return uniform.narrower(before, neurons, uniform.gone(before, found, self.amount, _TOGETHER))

    def leaves_alone(self, before: Outline, routed: Mapping[str, Place]) -> Mapping[str, str]:
        """What makes or reads no neuron or head."""
        found = [block for block in _blocks(before, routed) if self._may_go(block)]
        touched = {module for block in found for module in (*block.makers, block.reader)}
        return {name: "it makes or reads no neuron or head" for name, place in routed.items()
                if place.module not in touched}  # fmt: skip

    def _may_go(self, block: Block) -> bool:
        return self.heads or block.kind == "neurons"

    def prepare(self, weights: Weights, context: Context) -> Transform:
        """Reads the calibration texts and runs them, forward and back, through the whole model, in memory."""
        if self.amount == 0:
            return lambda weight: [weight]
        examples = context.examples()[:FEW]
        found = _blocks(context.outline, context.routed)
        model = context.model()
        known = curvatures(model, context.outline.task, [block.reader for block in found], examples)
        mean = sum(map(tokens, examples)) / len(examples)
        context.log(f"narrow: {len(examples)} texts of {mean:.0f} tokens on average")
        changes = (
            self._uniform(model, found, known, context)
            if self.uniform
            else self._by_need(model, found, known, mean, context.log)
        )
        modules = {name: place.module for name, place in context.outline.places.items()}

        def transform(weight: Weight) -> Iterable[Weight]:
            change = changes.get(modules[weight.name])
            return [weight if change is None else weight.with_tensor(change(weight.tensor))]

        return transform

    def _uniform(
        self, model: Any, found: Sequence[Block], known: Mapping[str, Curvature], context: Context
    ) -> dict[str, Change]:
        neurons = uniform.neurons_of_all_layers(context.outline, found)
        lost = uniform.gone(context.outline, found, self.amount, _TOGETHER)
        context.log(f"narrow: {lost} neurons of each of {len(neurons)} layers removed")
        return uniform.cut(model, neurons, known, lost, _TOGETHER)

    def _by_need(
        self,
        model: Any,
        found: Sequence[Block],
        known: Mapping[str, Curvature],
        mean: float,
        log: Callable[[str], None],
    ) -> dict[str, Change]:
        """What the answers need least, each layer with a width of its own; `mean` is the tokens of a text."""
        run = [block for block in found if block.reader in known]  # others decide nothing
        units = [
            _removable(block, model, known[block.reader], mean, self._may_go(block), self.measure) for block in run
        ]
        chosen, saved, loss = choose(units, self.amount)
        for each, count in zip(units, chosen, strict=True):
            if count:
                width = sum(len(removal.columns) for removal in each.removals[:count]) // each.block.size
                log(f"narrow: {each.block.reader}: {width} of {each.count} {each.block.kind} removed")
        work = f"time, measured in {self.measure}," if self.measure else "multiply-adds"
        log(f"narrow: {saved:.1%} of the {work} saved, expected to cost {loss:.2g} nats")
        return _changes(model, units, chosen)


@dataclass(frozen=True)
class Removable:
    """What may go of a block of `count` units, in order.

    The first n removals save `saves[n]` of the `whole` block's work a token: multiply-adds, or seconds.
    """

    block: Block
    curvature: Curvature
    count: int
    removals: Sequence[Removal]
    saves: Sequence[float]
    whole: float


def _blocks(before: Outline, routed: Mapping[str, Place]) -> list[Block]:
    found = blocks({place.module: None for place in routed.values()}, before.config)
    return [block for block in found if block.ranked]


def _removable(
    block: Block, model: Any, curvature: Curvature, mean: float, may_go: bool, measure: Arithmetic | None
) -> Removable:
    reader = model.get_submodule(block.reader)
    together = _TOGETHER if block.kind == "neurons" else 1
    count = reader.in_features // block.size
    goes = may_go and count > together and curvature.weight > 0
    found = removals(reader.weight.detach(), curvature, block.size, together) if goes else []
    removed = list(accumulate((len(removal.columns) for removal in found), initial=0))
    cost = partial(_cost, block, model, curvature.deciding, mean, measure)
    whole = cost(reader.in_features)
    if measure:
        saves = seconds_saved(cost, reader.in_features, removed)
    else:
        saves = [whole - cost(reader.in_features - each) for each in removed]
    return Removable(block, curvature, count, found, saves, whole)


def _cost(block: Block, model: Any, deciding: float, mean: float, measure: Arithmetic | None, width: int) -> float:
    """The work of a block for each token when its reader has `width` inputs: multiply-adds, or measured seconds."""
    product = partial(seconds_a_token, measure) if measure else mul
    reader = model.get_submodule(block.reader)
    # The last layer of a classifier that answers by its first token works for that one alone, but for keys and values.
    total = product(width, reader.out_features) * deciding
    for place, name in enumerate(block.makers):
        maker = model.get_submodule(name)
        needed = 1.0 if block.kind == "heads" and place else deciding
        total += product(maker.in_features, maker.out_features // reader.in_features * width) * needed
    if block.kind == "heads":
        total += 2 * product(round(mean) if measure else mean, width) * deciding
    return total


def choose(units: Sequence[Removable], amount: float) -> tuple[list[int], float, float]:
    """How many removals of each to take so that `amount` of all work is saved at the least divergence.

    Returns the share that is saved and the divergence in nats, too; as much as there is where `amount` cannot be had.
    """
    total = sum(each.whole for each in units)
    chosen = [0] * len(units)
    saved = loss = 0.0
    while saved < amount * total:
        steps = [
            (sum(removal.loss for removal in each.removals[taken:end]) / gain, place, end)
            for place, (each, taken) in enumerate(zip(units, chosen, strict=True))
            for end in range(taken + 1, min(taken + _AHEAD, len(each.removals)) + 1)
            if (gain := each.saves[end] - each.saves[taken]) > 0
        ]
        if not steps:
            break
        _, place, end = min(steps)
        saved += units[place].saves[end] - units[place].saves[chosen[place]]
        loss += sum(removal.loss for removal in units[place].removals[chosen[place] : end])
        chosen[place] = end
    return chosen, saved / (total or 1), loss


def _changes(model: Any, units: Sequence[Removable], chosen: Sequence[int]) -> dict[str, Change]:
    """What becomes of the matrices, by their modules."""
    changes = {}
    for each, count in zip(units, chosen, strict=True):
        if not count:
            continue
        columns = torch.cat([removal.columns for removal in each.removals[:count]])
        reader = model.get_submodule(each.block.reader).weight.detach()
        changes[each.block.reader] = matrix(without(reader, each.curvature, columns))
        for name in each.block.makers:
            weight = model.get_submodule(name).weight.detach().clone()
            weight.view(-1, reader.shape[1], weight.shape[1])[:, columns] = 0
            changes[name] = matrix(weight)
    return changes
