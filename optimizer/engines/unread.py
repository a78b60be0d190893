"""Neurons and attention heads that nothing reads: whatever they compute, the matrix that would read it has zeros there.

A stage that removes neurons or heads by zeros leaves every shape as it was. In a graph each layer may have a width of
its own, so that there they are left out: rows of the matrices that make them, columns of the one that reads them.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from optimizer.engines.rewiring import linear, replaced
from optimizer.model.blocks import Block, blocks


@dataclass(frozen=True)
class Selection:
    """The rows and columns that are left of a matrix, None for all of them."""

    matrix: torch.Tensor
    rows: torch.Tensor | None
    columns: torch.Tensor | None


@dataclass(frozen=True)
class Units:
    """The units of a block: how many there are, and the numbers of those that are read."""

    block: Block
    count: int
    kept: torch.Tensor

    @property
    def unread(self) -> int:
        """How many can be left out."""
        return self.count - len(self.kept)


# What attention modules call the number of heads, and the columns of all of them.
_COUNTS = ("num_attention_heads", "n_heads")
_WIDTH = "all_head_size"


def find(model: Any) -> list[Units]:
    """The neurons and heads of a model's layers; none of a family, or a version of one, that is not known."""
    modules = dict(model.named_modules())
    found = (_units(block, modules) for block in blocks(modules, model.config.to_dict()))
    return [units for units in found if units is not None]


def described(units: Sequence[Units]) -> str:
    """How much can be left out, in words; empty where everything is read."""
    words = []
    for name in ("neurons", "heads"):
        ours = [one for one in units if one.block.kind == name]
        if unread := sum(one.unread for one in ours):
            words.append(f"{unread} of {sum(one.count for one in ours)} {name}")
    return " and ".join(words)


def narrowed(model: nn.Module, units: Sequence[Units]) -> tuple[nn.Module, list[Selection]]:
    """A twin of the model without those that nothing reads, and what was selected of its matrices."""
    selections = []
    for one in units:
        if not one.unread:
            continue
        block = one.block
        if block.attention is not None:
            attention = model.get_submodule(block.attention)
            model = replaced(model, block.attention, _of_fewer_heads(attention, len(one.kept), block.size))
        columns = (one.kept[:, None] * block.size + torch.arange(block.size)).flatten()
        width = one.count * block.size
        rows = torch.cat([columns + part * width for part in range(block.parts)])
        for path, selected in [*((path, (rows, None)) for path in block.makers), (block.reader, (None, columns))]:
            before = model.get_submodule(path)
            assert isinstance(before, nn.Linear)
            model = replaced(model, path, _selected(before, *selected))
            selections.append(Selection(before.weight.detach(), *selected))
    return model, selections


def _units(block: Block, modules: Mapping[str, nn.Module]) -> Units | None:
    found = [modules[name] for name in (*block.makers, block.reader)]
    if any(type(module) is not nn.Linear for module in found):
        return None
    *makers, reader = (module for module in found if isinstance(module, nn.Linear))
    width = reader.in_features
    if width % block.size or any(maker.out_features != block.parts * width for maker in makers):
        return None
    kept = reader.weight.detach().any(0).view(-1, block.size).any(1).nonzero().flatten()
    # An engine is not asked to multiply matrices without rows.
    return Units(block, width // block.size, kept if len(kept) else torch.zeros(1, dtype=torch.long))


def _of_fewer_heads(attention: nn.Module, heads: int, size: int) -> nn.Module:
    twin = copy.copy(attention)
    for name, value in (*((name, heads) for name in _COUNTS), (_WIDTH, heads * size)):
        if hasattr(attention, name):
            setattr(twin, name, value)
    return twin


def _selected(module: nn.Linear, rows: torch.Tensor | None, columns: torch.Tensor | None) -> nn.Linear:
    weight, bias = module.weight.detach(), None if module.bias is None else module.bias.detach()
    if rows is not None:
        weight, bias = weight.index_select(0, rows), None if bias is None else bias.index_select(0, rows)
    if columns is not None:
        weight = weight.index_select(1, columns)
    return linear(weight, bias)
