"""ModernBERT with less work, and with masks that an engine can compute with.

Its local layers mask every key of a token that is padding and far from any text. torch answers with zeros there; an
engine whose softmax meets nothing but minus infinity answers NaN, and the next layer spreads it. Masks here are finite.
"""

from typing import Any

import torch
from torch import nn
from transformers.masking_utils import create_bidirectional_mask, create_bidirectional_sliding_window_mask
from transformers.modeling_outputs import BaseModelOutput

from optimizer.engines.first_token import MASKED, attend, heads_of, joined
from optimizer.engines.rewiring import linear, replaced

_MASKS = {
    "full_attention": create_bidirectional_mask,
    "sliding_attention": create_bidirectional_sliding_window_mask,
}


class _Model(nn.Module):
    """The encoder; its forward is the original's but for the masks."""

    embeddings: nn.Module
    layers: nn.ModuleList
    rotary_emb: nn.Module
    final_norm: nn.Module

    def __init__(self, model: Any) -> None:
        super().__init__()
        self._modules.update(model._modules)
        self.config = model.config

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> BaseModelOutput:
        states = self.embeddings(input_ids=input_ids)
        given = {"config": self.config, "inputs_embeds": states, "attention_mask": attention_mask}
        positions = torch.arange(input_ids.shape[1], device=input_ids.device).unsqueeze(0)
        kinds = sorted(set(self.config.layer_types))
        masks = {kind: _finite(_MASKS[kind](**given), states.dtype) for kind in kinds}
        rotations = {kind: self.rotary_emb(states, positions, kind) for kind in kinds}
        for layer in self.layers:
            kind: Any = layer.attention_type
            states = layer(states, attention_mask=masks[kind], position_embeddings=rotations[kind])
        return BaseModelOutput(last_hidden_state=self.final_norm(states))


def _finite(mask: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, MASKED)


class _Last(nn.Module):
    """The last layer for the first token alone: norms before, rotated positions, a gated feed-forward."""

    attn_norm: nn.Module
    attn: Any
    mlp_norm: nn.Module
    mlp: nn.Module

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self._modules.update(layer._modules)
        width = layer.attn.Wo.in_features
        # Views of the same weights: what is asked of the first token, and what is asked of all.
        self.query = _rows(layer.attn.Wqkv, 0, width)
        self.key_value = _rows(layer.attn.Wqkv, width, 3 * width)
        self.head_dim = layer.attn.head_dim
        self.attention_type = layer.attention_type

    def forward(
        self,
        states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_embeddings: Any = None,
        **_: Any,
    ) -> torch.Tensor:
        normal, first = self.attn_norm(states), states[:, :1]
        heads = self.attn.Wo.in_features // self.head_dim
        key, value = (heads_of(each, heads) for each in self.key_value(normal).chunk(2, dim=-1))
        query = heads_of(self.query(normal[:, :1]), heads)
        cos, sin = (each.unsqueeze(1) for each in position_embeddings)
        query = _rotated(query, cos[:, :, :1], sin[:, :, :1]) * self.head_dim**-0.5
        context = attend(query, _rotated(key, cos, sin), value, attention_mask)
        first = first + self.attn.Wo(joined(context))
        answer: torch.Tensor = first + self.mlp(self.mlp_norm(first))
        return answer


def _rows(module: nn.Linear, start: int, end: int) -> nn.Linear:
    return linear(module.weight[start:end], None if module.bias is None else module.bias[start:end])


def _rotated(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    left, right = states.chunk(2, dim=-1)
    return states * cos + torch.cat((-right, left), dim=-1) * sin


def masks(model: nn.Module) -> nn.Module:
    """Finite masks, made once, for any task."""
    path = "model" if "model" in model._modules else ""
    encoder = _Model(model.get_submodule(path))
    return replaced(model, path, encoder) if path else encoder


def masks_and_first_token(model: nn.Module) -> nn.Module:
    """Finite masks, and the last layer for the first token alone."""
    layers = model.get_submodule("model.layers")
    assert isinstance(layers, nn.ModuleList)
    return masks(replaced(model, f"model.layers.{len(layers) - 1}", _Last(layers[-1])))
