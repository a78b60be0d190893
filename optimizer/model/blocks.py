"""The parts of an encoder's layers that can get narrower: feed-forward neurons, and attention heads."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Block:
    """Linear modules, by their paths, with units between them: `makers` make each unit, `reader` alone reads it.

    A unit is `size` inputs of the reader that follow each other: a neuron, or a head. Each maker has as many outputs
    as the reader has inputs, or a multiple (a gated feed-forward has two halves).
    """

    kind: Literal["neurons", "heads"]
    makers: tuple[str, ...]
    reader: str
    size: int


_FEED_FORWARDS = (
    ("intermediate.dense", "output.dense"),  # BERT and what follows it, DeBERTa, MPNet
    ("ffn.lin1", "ffn.lin2"),  # DistilBERT
    ("mlp.Wi", "mlp.Wo"),  # ModernBERT
)
_ATTENTIONS = (
    (("attention.self.query", "attention.self.key", "attention.self.value"), "attention.output.dense"),
    (("attention.q_lin", "attention.k_lin", "attention.v_lin"), "attention.out_lin"),
)
_WIDTHS, _HEADS = ("hidden_size", "dim"), ("num_attention_heads", "n_heads")


def blocks(modules: Collection[str], config: Mapping[str, Any]) -> list[Block]:
    """The blocks of a model with these modules and these values of config.json, layer by layer; [] if none is known."""
    found = []
    size = _first(config, _WIDTHS) // (_first(config, _HEADS) or 1)
    for module in modules:
        for up, down in _FEED_FORWARDS:
            layer = module.removesuffix(f".{up}")
            if layer != module and f"{layer}.{down}" in modules:
                found.append(Block("neurons", (module,), f"{layer}.{down}", 1))
        for makers, out in _ATTENTIONS:
            layer = module.removesuffix(f".{out}")
            paths = tuple(f"{layer}.{maker}" for maker in makers)
            if layer != module and size and all(path in modules for path in paths):
                found.append(Block("heads", paths, module, size))
    return found


def _first(config: Mapping[str, Any], names: Collection[str]) -> int:
    return next((int(config[name]) for name in names if name in config), 0)
