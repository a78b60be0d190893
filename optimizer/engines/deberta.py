"""DeBERTa-v2 and v3 with less work: projected relative positions as constants, and no gathering where shifting does.

A score is q·k + q·K[i-j] + k·Q[i-j] with tables K and Q of 2 x span rows that depend on no input. The original makes
(queries x rows) products and gathers one of them for each key, element by element; that costs more than the products.
Here, for few rows, the same gather runs over flattened products with one index for all heads and texts; for many, rows
are first put in the order of i-j, 2 x tokens of them, and a view whose rows are one shorter shifts each query's by one.
"""

import math
from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

from optimizer.engines.first_token import MASKED, Parts, attend, finish, heads_of
from optimizer.engines.rewiring import replaced

# Up to so many rows of a table, gathering measured faster than shifting at 128 tokens (14.3 ms against 20.1).
_FEW_ROWS = 64


class _Encoder(nn.Module):
    """The encoder of a DeBERTa; takes the mask of the tokens, (batch, tokens), and gives what the model reads of it."""

    rows: torch.Tensor

    def __init__(self, encoder: Any, config: Any, only_first: bool) -> None:
        super().__init__()
        self._modules.update(encoder._modules)
        self.layers = [_parts(layer) for layer in encoder.layer]
        self.conv = encoder.conv
        self.only_first = only_first
        attention = encoder.layer[0].attention.self
        kinds = [kind for kind in ("c2p", "p2c") if kind in attention.pos_att_type]
        # The original scales by the kinds that the configuration names, whether or not they are computed.
        self.scale = 1 / math.sqrt(attention.attention_head_size * (1 + len(kinds)))
        self.kinds = kinds if encoder.relative_attention else []
        if self.kinds:
            self.far = 2 * max(attention.max_relative_positions, attention.pos_ebd_size)
            # Distances i-j from -far to far, as rows of the tables; beyond, the row of the farthest.
            self.register_buffer("rows", _rows(attention, self.far), persistent=False)
            self.few = 2 * attention.pos_ebd_size <= _FEW_ROWS
            for i, layer in enumerate(encoder.layer):
                for kind, table in _tables(layer.attention.self, encoder.get_rel_embedding()).items():
                    # c2p meets scaled queries; p2c meets keys, so its table carries the scale.
                    scaled = table * self.scale if kind == "p2c" else table
                    self.register_buffer(f"{kind}_{i}", scaled, persistent=False)

    def forward(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> BaseModelOutput:
        # Not [:, None, None, :]: a slice of everything would become a second name of the graph's input.
        mask = (1 - attention_mask.unsqueeze(1).unsqueeze(1).to(hidden_states.dtype)) * MASKED
        tokens = hidden_states.shape[1]
        index = self._index(tokens) if self.kinds else None
        states = hidden_states
        for i, parts in enumerate(self.layers):
            last = self.only_first and i == len(self.layers) - 1
            states = self._first(i, parts, states, mask) if last else self._all(i, parts, states, mask, index)
            if i == 0 and self.conv is not None:
                states = self.conv(hidden_states, states, attention_mask)
        return BaseModelOutput(last_hidden_state=states, hidden_states=(states,))

    def _all(self, i: int, parts: Parts, states: torch.Tensor, mask: torch.Tensor, index: Any) -> torch.Tensor:
        query, key, value = (heads_of(part(states), parts.heads) for part in (parts.query, parts.key, parts.value))
        query = query * self.scale
        for kind, side in (("c2p", query), ("p2c", key)):
            if kind in self.kinds:
                table, at = getattr(self, f"{kind}_{i}"), index[kind]
                mask = mask + (_gathered(side, table, at) if self.few else _shifted(side, table, at, kind == "p2c"))
        return finish(parts, attend(query, key, value, mask), states)

    def _first(self, i: int, parts: Parts, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        first = states[:, :1]
        query, key, value = (
            heads_of(part(each), parts.heads)
            for part, each in ((parts.query, first), (parts.key, states), (parts.value, states))
        )
        query = query * self.scale
        if self.kinds:
            rows = self._row_of(-torch.arange(states.shape[1], device=states.device))
            if "c2p" in self.kinds:
                mask = mask + query @ getattr(self, f"c2p_{i}")[:, :, rows].transpose(-1, -2)
            if "p2c" in self.kinds:
                mask = mask + (key * getattr(self, f"p2c_{i}")[:, :, rows]).sum(-1).unsqueeze(2)
        return finish(parts, attend(query, key, value, mask), first)

    def _row_of(self, distance: torch.Tensor) -> torch.Tensor:
        return self.rows[distance.clamp(-self.far, self.far) + self.far]

    def _index(self, tokens: int) -> dict[str, torch.Tensor]:
        """Once for all layers: where each score is among the flattened products, or the rows in the order of i-j."""
        if not self.few:
            across = torch.arange(2 * tokens, device=self.rows.device) - (tokens - 1)
            return {"c2p": self._row_of(-across), "p2c": self._row_of(across)}
        at = torch.arange(tokens, device=self.rows.device)
        rows = self._row_of(at[:, None] - at[None, :])
        width = getattr(self, f"{self.kinds[0]}_0").shape[2]
        return {"c2p": (at[:, None] * width + rows).flatten(), "p2c": (at[None, :] * width + rows).flatten()}


def _shifted(side: torch.Tensor, table: torch.Tensor, rows: torch.Tensor, of_keys: bool) -> torch.Tensor:
    products = side @ table.index_select(2, rows).transpose(-1, -2)
    batch, heads, tokens, width = products.shape
    # Element (i, j) wants column j - i + tokens - 1 of 2 x tokens: one row further is one column less.
    flat = products.flatten(2)[:, :, tokens - 1 : tokens * width - 1]
    scores = flat.reshape(batch, heads, tokens, width - 1)[..., :tokens]
    return scores.transpose(-1, -2) if of_keys else scores


def _gathered(side: torch.Tensor, table: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    products = side @ table.transpose(-1, -2)
    batch, heads, tokens, _ = products.shape
    # A gather along one axis of a matrix is vectorized by the engine; one with an index for each element is not.
    return products.reshape(batch * heads, -1).index_select(1, index).view(batch, heads, tokens, tokens)


def _rows(attention: Any, far: int) -> torch.Tensor:
    distance = torch.arange(-far, far + 1)
    if attention.position_buckets > 0:
        distance = make_log_bucket_position(
            distance, attention.position_buckets, attention.max_relative_positions
        ).long()
    span = attention.pos_ebd_size
    rows: torch.Tensor = (distance + span).clamp(0, 2 * span - 1)
    return rows


@torch.no_grad()
def _tables(attention: Any, embeddings: torch.Tensor) -> dict[str, torch.Tensor]:
    """The relative embeddings as seen by each kind of attention of one layer: (1, heads, rows, head width)."""
    if attention.share_att_key:
        projections = {"c2p": attention.key_proj, "p2c": attention.query_proj}
    else:
        projections = {
            "c2p": getattr(attention, "pos_key_proj", None),
            "p2c": getattr(attention, "pos_query_proj", None),
        }
    embeddings = embeddings[: 2 * attention.pos_ebd_size].unsqueeze(0)
    return {
        kind: heads_of(project(embeddings), attention.num_attention_heads).contiguous()
        for kind, project in projections.items()
        if kind in attention.pos_att_type and project is not None
    }


def _parts(layer: Any) -> Parts:
    attention = layer.attention.self
    return Parts(
        query=attention.query_proj, key=attention.key_proj, value=attention.value_proj,
        out=layer.attention.output.dense, attended=layer.attention.output.LayerNorm,
        up=layer.intermediate.dense, activation=layer.intermediate.intermediate_act_fn,
        down=layer.output.dense, norm=layer.output.LayerNorm, heads=attention.num_attention_heads,
    )  # fmt: skip


def positions(model: nn.Module) -> nn.Module:
    """Folded positions in all layers, for any task."""
    return _with(model, only_first=False)


def positions_and_first_token(model: nn.Module) -> nn.Module:
    """Folded positions, and the last layer for the first token alone."""
    return _with(model, only_first=True)


def _with(model: nn.Module, only_first: bool) -> nn.Module:
    prefix = getattr(model, "base_model_prefix", "")
    path = f"{prefix}.encoder" if hasattr(model, prefix) else "encoder"
    encoder: Any = model.get_submodule(path)
    # A convolution after the first layer reads its neighbours: with one layer only, that is all of them.
    return replaced(
        model, path, _Encoder(encoder, model.config, only_first and (len(encoder.layer) > 1 or encoder.conv is None))
    )
