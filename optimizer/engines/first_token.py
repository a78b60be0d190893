"""The last layer for the first token alone: a classifier that reads [CLS] asks no other token for its last answer.

Keys and values of the last layer are still made of all tokens; queries, attention output, residual, feed-forward and
norms of one. Most encoders since BERT differ in the names of these parts alone, so a family is a function to `Parts`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from optimizer.engines.rewiring import replaced

Function = Callable[[torch.Tensor], torch.Tensor]

# What is added to the score of a key that may not be seen: finite in bfloat16 too, where float32's smallest would be
# minus infinity, and a softmax over nothing else NaN.
MASKED = torch.finfo(torch.bfloat16).min / 2


@dataclass(frozen=True)
class Parts:
    """The modules of a layer that normalizes after each residual, under one name whatever its family calls them."""

    query: Function
    key: Function
    value: Function
    out: Function
    attended: Function
    up: Function
    activation: Function
    down: Function
    norm: Function
    heads: int


def heads_of(states: torch.Tensor, heads: int) -> torch.Tensor:
    """States (batch, tokens, width) as (batch, heads, tokens, width / heads)."""
    return states.view(states.shape[0], -1, heads, states.shape[-1] // heads).transpose(1, 2)


def joined(context: torch.Tensor) -> torch.Tensor:
    """The inverse of `heads_of`."""
    return context.transpose(1, 2).flatten(2)


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Attention of queries, all or the first ones, already scaled; `mask` is added, or True where a key may be seen."""
    # Written out: exporters know these four operations better than the one that stands for them.
    scores = query @ key.transpose(-1, -2)
    if mask is not None:
        mask = mask[:, :, : query.shape[2]]
        scores = scores.masked_fill(~mask, MASKED) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(-1) @ value


def finish(parts: Parts, context: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
    """What follows attention: both residuals, the feed-forward between them, and their norms."""
    states = parts.attended(parts.out(joined(context)) + residual)
    return parts.norm(parts.down(parts.activation(parts.up(states))) + states)


def first_token(
    parts: Parts, states: torch.Tensor, mask: torch.Tensor | None = None, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """A layer's output for token 0: states (batch, tokens, width) to (batch, 1, width); scores get `bias` added."""
    first = states[:, :1]
    query, key, value = (
        heads_of(project(each), parts.heads)
        for project, each in ((parts.query, first), (parts.key, states), (parts.value, states))
    )
    if bias is not None:
        bias = bias[:, :, :1]
        mask = bias if mask is None else bias + mask[:, :, :1]
    return finish(parts, attend(query * query.shape[-1] ** -0.5, key, value, mask), first)


class _Last(nn.Module):
    """A layer that answers for the first token; its modules keep their names, so that patterns still find them."""

    def __init__(self, layer: nn.Module, parts: Parts, in_tuple: bool) -> None:
        super().__init__()
        self._modules.update(layer._modules)
        self.parts = parts
        self.in_tuple = in_tuple

    def forward(
        self, states: torch.Tensor, attention_mask: torch.Tensor | None = None, bias: Any = None, **_: Any
    ) -> Any:
        answer = first_token(self.parts, states, attention_mask, bias)
        return (answer,) if self.in_tuple else answer


def bert_parts(layer: Any) -> Parts:
    """BERT, RoBERTa, XLM-R, CamemBERT, ELECTRA."""
    attention = layer.attention
    return Parts(
        query=attention.self.query, key=attention.self.key, value=attention.self.value,
        out=attention.output.dense, attended=attention.output.LayerNorm,
        up=layer.intermediate.dense, activation=layer.intermediate.intermediate_act_fn,
        down=layer.output.dense, norm=layer.output.LayerNorm, heads=attention.self.num_attention_heads,
    )  # fmt: skip


def distilbert_parts(layer: Any) -> Parts:
    """DistilBERT."""
    attention = layer.attention
    return Parts(
        query=attention.q_lin, key=attention.k_lin, value=attention.v_lin,
        out=attention.out_lin, attended=layer.sa_layer_norm,
        up=layer.ffn.lin1, activation=layer.ffn.activation,
        down=layer.ffn.lin2, norm=layer.output_layer_norm, heads=attention.n_heads,
    )  # fmt: skip


def mpnet_parts(layer: Any) -> Parts:
    """MPNet."""
    attention = layer.attention.attn
    return Parts(
        query=attention.q, key=attention.k, value=attention.v,
        out=attention.o, attended=layer.attention.LayerNorm,
        up=layer.intermediate.dense, activation=layer.intermediate.intermediate_act_fn,
        down=layer.output.dense, norm=layer.output.LayerNorm, heads=attention.num_attention_heads,
    )  # fmt: skip


def albert_parts(layer: Any) -> Parts:
    """ALBERT."""
    attention = layer.attention
    return Parts(
        query=attention.query, key=attention.key, value=attention.value,
        out=attention.dense, attended=attention.LayerNorm,
        up=layer.ffn, activation=layer.activation,
        down=layer.ffn_output, norm=layer.full_layer_layer_norm, heads=attention.num_attention_heads,
    )  # fmt: skip


def last_layer(path: str, parts: Callable[[Any], Parts], in_tuple: bool = False) -> Callable[[nn.Module], nn.Module]:
    """A reduction for encoders that keep their layers in a list at `path`, each called with the states and a mask."""

    def apply(model: nn.Module) -> nn.Module:
        layers = model.get_submodule(path)
        assert isinstance(layers, nn.ModuleList)
        last = layers[-1]
        return replaced(model, f"{path}.{len(layers) - 1}", _Last(last, parts(last), in_tuple))

    return apply


class _Albert(nn.Module):
    """ALBERT's encoder, whose layers are shared: only the last application of the last one is for the first token."""

    embedding_hidden_mapping_in: nn.Module
    albert_layer_groups: nn.ModuleList

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self._modules.update(encoder._modules)
        count, groups = encoder.config.num_hidden_layers, encoder.config.num_hidden_groups
        # The same arithmetic as the original's, rounding included.
        self.order = [int(i / (count / groups)) for i in range(count)]

    def forward(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **_: Any) -> Any:
        states = self.embedding_hidden_mapping_in(hidden_states)
        for index in self.order[:-1]:
            states = self.albert_layer_groups[index](states, attention_mask)
        group: Any = self.albert_layer_groups[self.order[-1]]
        *others, last = group.albert_layers
        for layer in others:
            states = layer(states, attention_mask)
        return (first_token(albert_parts(last), states, attention_mask),)


def albert(model: nn.Module) -> nn.Module:
    """The reduction for ALBERT."""
    return replaced(model, "albert.encoder", _Albert(model.get_submodule("albert.encoder")))
