"""The parts of an encoder's layers that can get narrower: feed-forward neurons, and attention heads."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["neurons", "heads"]


@dataclass(frozen=True)
class Block:
    """Linear modules, by their paths, with units between them: `makers` make each unit, `reader` alone reads it.

    A unit is `size` inputs of the reader that follow each other: a neuron, or a head. Each maker has `parts` times as
    many outputs as the reader has inputs (a gated feed-forward has two halves). `attention` is the module that says
    how many heads there are; None for neurons. `ranked` says whether what a unit is worth can be told by itself: not in
    layers that are used several times, nor of heads that are more than queries, keys and values.
    """

    kind: Kind
    makers: tuple[str, ...]
    reader: str
    size: int
    parts: int
    attention: str | None
    ranked: bool


@dataclass(frozen=True)
class _Shape:
    """A block as a family names it, by paths in a layer; `also` are makers that only some of its models have."""

    makers: tuple[str, ...]
    reader: str
    attention: str | None = None
    also: tuple[str, ...] = ()
    parts: int = 1
    ranked: bool = True


def _heads(attention: str, makers: tuple[str, ...], reader: str, also: tuple[str, ...] = (), **how: Any) -> _Shape:
    paths, more = (tuple(f"{attention}.{name}" for name in names) for names in (makers, also))
    return _Shape(paths, reader, attention, more, **how)


_SHAPES = (
    # BERT and what follows it, DeBERTa, MPNet; the heads of MPNet share a table of position biases, a column each.
    _Shape(("intermediate.dense",), "output.dense"),
    _heads("attention.self", ("query", "key", "value"), "attention.output.dense"),
    _heads(
        "attention.self",
        ("query_proj", "key_proj", "value_proj"),
        "attention.output.dense",
        also=("pos_key_proj", "pos_query_proj"),
        ranked=False,
    ),
    # DistilBERT
    _Shape(("ffn.lin1",), "ffn.lin2"),
    _heads("attention", ("q_lin", "k_lin", "v_lin"), "attention.out_lin"),
    # ALBERT
    _Shape(("ffn",), "ffn_output", ranked=False),
    _heads("attention", ("query", "key", "value"), "attention.dense", ranked=False),
    # ModernBERT
    _Shape(("mlp.Wi",), "mlp.Wo", parts=2),
    _heads("attn", ("Wqkv",), "attn.Wo", parts=3, ranked=False),
)
_WIDTHS, _HEADS = ("hidden_size", "dim"), ("num_attention_heads", "n_heads")
_NEURONS = ("intermediate_size", "hidden_dim")


def blocks(modules: Collection[str], config: Mapping[str, Any]) -> list[Block]:
    """The blocks of a model with these modules and these values of config.json, layer by layer; [] if none is known."""
    return list(_blocks(modules, _first(config, _WIDTHS) // (_first(config, _HEADS) or 1)))


def width_key(config: Mapping[str, Any]) -> str | None:
    """The key of config.json that says how many neurons the feed-forward of every layer has; None if none does."""
    return next((name for name in _NEURONS if isinstance(config.get(name), int)), None)


def _blocks(modules: Collection[str], head_size: int) -> Iterator[Block]:
    for module in modules:
        for shape in _SHAPES:
            layer = module.removesuffix(shape.reader)
            makers = [f"{layer}{name}" for name in shape.makers]
            size = 1 if shape.attention is None else head_size
            ends_there = module == f"{layer}{shape.reader}" and (not layer or layer.endswith("."))
            if not ends_there or not size or not all(maker in modules for maker in makers):
                continue
            makers += [maker for name in shape.also if (maker := f"{layer}{name}") in modules]
            attention = None if shape.attention is None else f"{layer}{shape.attention}"
            kind: Kind = "neurons" if attention is None else "heads"
            yield Block(kind, tuple(makers), module, size, shape.parts, attention, shape.ranked)


def _first(config: Mapping[str, Any], names: Collection[str]) -> int:
    return next((int(config[name]) for name in names if name in config), 0)
