"""Neurons and attention heads that nothing reads: whatever they compute, the matrix that would read it has zeros there.

A stage that removes neurons or heads by zeros leaves every shape as it was. In a graph each layer may have a width of
its own, so that there they are left out: rows of the matrices that make them, columns of the one that reads them.
"""

import copy
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from optimizer.engines.rewiring import linear, replaced


@dataclass(frozen=True)
class Selection:
    """The rows and columns that are left of a matrix, None for all of them."""

    matrix: torch.Tensor
    rows: torch.Tensor | None
    columns: torch.Tensor | None


@dataclass(frozen=True)
class _Units:
    """Where a layer has them: made by rows of `makers`, in each `parts` times over, and read by columns of `reader`.

    `attention` is the module that says how many columns a head has, and how many heads there are; None for neurons.
    """

    name: str
    makers: tuple[str, ...]
    reader: str
    parts: int = 1
    attention: str | None = None


@dataclass(frozen=True)
class Units:
    """The units of one layer: how many there are, of how many columns each, and the numbers of those that are read."""

    layer: str
    where: _Units
    count: int
    size: int
    kept: torch.Tensor

    @property
    def unread(self) -> int:
        """How many can be left out."""
        return self.count - len(self.kept)


def _heads(attention: str, makers: Sequence[str], reader: str, parts: int = 1) -> _Units:
    return _Units("heads", tuple(f"{attention}.{name}" for name in makers), reader, parts, attention)


_NEURONS = _Units("neurons", ("intermediate.dense",), "output.dense")
_BERT = (
    r"encoder\.layer\.\d+",
    (_NEURONS, _heads("attention.self", ("query", "key", "value"), "attention.output.dense")),
)
# Of each family: the layers, as a pattern of their paths in the encoder, and what they have.
_FAMILIES: dict[str, tuple[str, tuple[_Units, ...]]] = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra"), _BERT),
    "distilbert": (
        r"transformer\.layer\.\d+",
        (
            _Units("neurons", ("ffn.lin1",), "ffn.lin2"),
            _heads("attention", ("q_lin", "k_lin", "v_lin"), "attention.out_lin"),
        ),
    ),
    # Its heads share a table of position biases, a column each, that all layers add.
    "mpnet": (r"encoder\.layer\.\d+", (_NEURONS,)),
    "albert": (
        r"encoder\.albert_layer_groups\.\d+\.albert_layers\.\d+",
        (_Units("neurons", ("ffn",), "ffn_output"), _heads("attention", ("query", "key", "value"), "attention.dense")),
    ),
    "deberta-v2": (
        r"encoder\.layer\.\d+",
        (
            _NEURONS,
            _heads(
                "attention.self",
                ("query_proj", "key_proj", "value_proj", "pos_key_proj", "pos_query_proj"),
                "attention.output.dense",
            ),
        ),
    ),
    "modernbert": (
        r"layers\.\d+",
        (_Units("neurons", ("mlp.Wi",), "mlp.Wo", parts=2), _heads("attn", ("Wqkv",), "attn.Wo", parts=3)),
    ),
}
# What attention modules call the number of heads, the columns of one, and those of all.
_COUNTS = ("num_attention_heads", "n_heads")
_SIZES = ("attention_head_size", "head_dim")
_WIDTH = "all_head_size"


def find(model: Any) -> list[Units]:
    """The neurons and heads of a model's layers; none of a family, or a version of one, that is not known."""
    pattern, kinds = _FAMILIES.get(model.config.model_type, ("", ()))
    prefix = re.escape(getattr(model, "base_model_prefix", ""))
    layer_path = re.compile(rf"(?:{prefix}\.)?{pattern}")
    layers = [(path, module) for path, module in model.named_modules() if layer_path.fullmatch(path)]
    found = (_units(path, layer, where) for path, layer in layers for where in kinds)
    return [units for units in found if units is not None]


def described(units: Sequence[Units]) -> str:
    """How much can be left out, in words; empty where everything is read."""
    words = []
    for name in ("neurons", "heads"):
        ours = [one for one in units if one.where.name == name]
        if unread := sum(one.unread for one in ours):
            words.append(f"{unread} of {sum(one.count for one in ours)} {name}")
    return " and ".join(words)


def narrowed(model: nn.Module, units: Sequence[Units]) -> tuple[nn.Module, list[Selection]]:
    """A twin of the model without those that nothing reads, and what was selected of its matrices."""
    selections = []
    for one in units:
        if not one.unread:
            continue
        if one.where.attention is not None:
            path = f"{one.layer}.{one.where.attention}"
            model = replaced(model, path, _of_fewer_heads(model.get_submodule(path), len(one.kept), one.size))
        columns = (one.kept[:, None] * one.size + torch.arange(one.size)).flatten()
        width = one.count * one.size
        rows = torch.cat([columns + part * width for part in range(one.where.parts)])
        reader = f"{one.layer}.{one.where.reader}"
        makers = [f"{one.layer}.{name}" for name in _present(model.get_submodule(one.layer), one.where.makers)]
        for path, selected in [*((path, (rows, None)) for path in makers), (reader, (None, columns))]:
            before = model.get_submodule(path)
            assert isinstance(before, nn.Linear)
            model = replaced(model, path, _selected(before, *selected))
            selections.append(Selection(before.weight.detach(), *selected))
    return model, selections


def _units(path: str, layer: nn.Module, where: _Units) -> Units | None:
    names = list(_present(layer, (*where.makers, where.reader)))
    modules = [layer.get_submodule(name) for name in names]
    if where.reader not in names or len(names) < 2 or any(type(module) is not nn.Linear for module in modules):
        return None
    *makers, reader = (module for module in modules if isinstance(module, nn.Linear))
    size = 1 if where.attention is None else _head_size(layer.get_submodule(where.attention))
    width = reader.in_features
    if not size or width % size or any(maker.out_features != where.parts * width for maker in makers):
        return None
    kept = reader.weight.detach().any(0).view(-1, size).any(1).nonzero().flatten()
    # An engine is not asked to multiply matrices without rows.
    return Units(path, where, width // size, size, kept if len(kept) else torch.zeros(1, dtype=torch.long))


def _present(layer: nn.Module, names: Sequence[str]) -> Iterator[str]:
    paths = {path for path, _ in layer.named_modules()}
    return (name for name in names if name in paths)


def _head_size(attention: nn.Module) -> int | None:
    return next((int(getattr(attention, name)) for name in _SIZES if hasattr(attention, name)), None)


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
