"""One width for the feed-forward of every layer: neurons leave tensors and config.json, so that anything loads it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from optimizer.errors import StageError
from optimizer.model.blocks import Block, blocks, width_key
from optimizer.model.outline import Entry, Outline
from optimizer.stages.curvature import Curvature
from optimizer.stages.elimination import MOST, Change, matrix, removals, without


def neurons_of_all_layers(before: Outline, found: Sequence[Block]) -> list[Block]:
    """Those of `found` blocks that are neurons.

    Raises StageError unless they are those of all layers, and config.json says how many a layer has.
    """
    neurons = [block for block in found if block.kind == "neurons"]
    modules = {place.module: None for place in before.places.values()}
    everywhere = [block for block in blocks(modules, before.config) if block.kind == "neurons"]
    if not neurons or len(neurons) != len(everywhere):
        raise StageError("uniform: needs the feed-forward matrices of every layer; remove only and skip")
    if width_key(before.config) is None:
        raise StageError("uniform: config.json does not say how many neurons a layer has; write uniform: false")
    return neurons


def gone(before: Outline, found: Sequence[Block], amount: float, together: int) -> int:
    """How many neurons each layer loses, a multiple of `together`, to save `amount` of its matrices' multiply-adds.

    Raises StageError where so many are not to be had.
    """
    neurons = neurons_of_all_layers(before, found)
    key = width_key(before.config)
    assert key is not None
    width = int(before.config[key])
    one = sum(_values(before, block) for block in neurons) / width
    wanted = math.ceil(amount * sum(_values(before, block) for block in found) / one / together) * together
    most = int(width * MOST) // together * together
    if wanted > most:
        raise StageError(f"uniform: {wanted} of {width} neurons of each layer would go, {most} may; write less amount")
    return wanted


def narrower(before: Outline, neurons: Sequence[Block], lost: int) -> Outline:
    """The outline with so many neurons less in every layer."""
    key = width_key(before.config)
    assert key is not None
    shapes = {module: axis for block in neurons for module, axis in _axes(block)}
    changed = (_cut(entry, *shapes[entry.place.module], lost) for entry in before.entries.values()
               if entry.place is not None and entry.place.module in shapes)  # fmt: skip
    return before.with_entries(changed).with_config(**{key: int(before.config[key]) - lost})


def cut(
    model: Any, neurons: Sequence[Block], known: Mapping[str, Curvature], lost: int, together: int
) -> dict[str, Change]:
    """What becomes of the weights and biases of each module, when each block loses so many neurons.

    Those go that the answers need least, and the readers are fitted to the others.
    """
    changes: dict[str, Change] = {}
    for block in neurons:
        weight = model.get_submodule(block.reader).weight.detach()
        columns = torch.arange(lost)
        if (curvature := known.get(block.reader)) is not None and curvature.weight > 0:
            steps = removals(weight, curvature, 1, together)[: lost // together]
            columns = torch.cat([step.columns for step in steps])
            weight = without(weight, curvature, columns)
        stays = torch.ones(weight.shape[1], dtype=torch.bool)
        stays[columns] = False
        changes[block.reader] = matrix(weight[:, stays])
        for maker in block.makers:
            changes[maker] = _rows(stays.repeat(block.parts))
    return changes


def _rows(stays: Tensor) -> Change:
    return lambda tensor: tensor[stays]


def _values(before: Outline, block: Block) -> int:
    modules = {*block.makers, block.reader}
    return sum(entry.values for entry in before.entries.values()
               if entry.place is not None and entry.place.module in modules and len(entry.shape) > 1)  # fmt: skip


def _axes(block: Block) -> Iterator[tuple[str, tuple[int, int]]]:
    """Of each module, the axis of its weight that gets shorter, and how many times."""
    yield block.reader, (1, 1)
    for maker in block.makers:
        yield maker, (0, block.parts)


def _cut(entry: Entry, axis: int, parts: int, lost: int) -> Entry:
    shape = list(entry.shape)
    if axis < len(shape):
        shape[axis] -= parts * lost
    return replace(entry, shape=tuple(shape))
