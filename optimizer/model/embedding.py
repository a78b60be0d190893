"""One vector of a text's tokens, as sentence-transformers 6 makes it: what modules.json and the files beside it say."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear, normalize

from optimizer.errors import ModelError
from optimizer.model.directory import MODULES, Module, modules, root_of
from optimizer.model.shards import open_shards, stored_tensors
from optimizer.model.tokenizer import load_tokenizer

_SENTENCE = "sentence_embedding"
_SETTINGS = "sentence_bert_config.json"
_PROMPTS = "config_sentence_transformers.json"
_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""The modes of pooling by the keys of older files, in the order in which vectors of several are put together."""

Layer = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Reading:
    """How texts become tokens: the text before each, whether in lower case, the most tokens if that is said."""

    prompt: str = ""
    lower: bool = False
    length: int | None = None


@dataclass(frozen=True)
class Embedder:
    """Makes vectors of tokens: pools them by each of `modes`, the first `skipped` left out, then applies `layers`."""

    modes: tuple[str, ...]
    layers: tuple[Layer, ...] = ()
    skipped: int = 0

    def __call__(self, states: Tensor, mask: Tensor) -> Tensor:
        """The vectors `[texts, width]` of states `[texts, tokens, width]`; `mask` `[texts, tokens]` is 0 at padding."""
        counted = mask.to(torch.float32, copy=True)
        counted[:, : self.skipped] = 0
        full = states.float()
        pooled = torch.cat([_POOL[mode](full, counted) for mode in self.modes], dim=-1).to(states.dtype)
        for layer in self.layers:
            pooled = layer(pooled)
        return pooled


def reading(directory: Path) -> Reading:
    """How the texts of the model in `directory` are read; without modules.json as any transformers model's."""
    root = root_of(directory)
    if not modules(root):
        return Reading()
    settings, prompts = _read(directory / _SETTINGS), _read(root / _PROMPTS)
    prompt = (prompts.get("prompts") or {}).get(prompts.get("default_prompt_name")) or ""
    return Reading(prompt, bool(settings.get("do_lower_case")), settings.get("max_seq_length"))


def embedder(directory: Path, pooling: str | None = None) -> Embedder:
    """What makes vectors of the tokens of the model in `directory`: its modules, else `pooling`, by default the mean.

    Raises ModelError for modules that are not known here, and for a `pooling` beside them.
    """
    root = root_of(directory)
    listed = modules(root)
    if not listed:
        return Embedder((pooling or "mean",))
    if pooling:
        raise ModelError(f"data.pooling: {root / MODULES} says how its vectors are made; remove it")
    first, *others = listed
    if first.kind != "Transformer" or [each.kind for each in others].count("Pooling") != 1:
        kinds = ", ".join(each.kind for each in listed)
        raise ModelError(f"{root / MODULES}: has no Transformer with a Pooling ({kinds}); write evaluation.examples=0")
    if others[0].kind != "Pooling":
        raise ModelError(f"{root / MODULES}: has a {others[0].kind} before its Pooling; write evaluation.examples=0")
    config = _read(root / others[0].folder / "config.json")
    skipped = 0 if config.get("include_prompt", True) else _prompt_tokens(directory)
    layers = tuple(layer for each in others[1:] if (layer := _layer(root, each)) is not None)
    return Embedder(_modes(root, config), layers, skipped)


def _modes(root: Path, config: dict[str, Any]) -> tuple[str, ...]:
    said = config.get("pooling_mode") or [mode for key, mode in _FLAGS.items() if config.get(key)] or "mean"
    modes = (said,) if isinstance(said, str) else tuple(said)
    for mode in modes:
        if mode not in _POOL:
            raise ModelError(f"{root}: pools by '{mode}', which is not known here; write evaluation.examples=0")
    return modes


def _prompt_tokens(directory: Path) -> int:
    """How many tokens the prompt is, without one that ends every text."""
    prompt, tokenizer = reading(directory).prompt, load_tokenizer(directory)
    if not prompt or tokenizer is None:
        return 0
    ids = tokenizer(prompt)["input_ids"]
    return len(ids) - (ids[-1] in tokenizer.all_special_ids)


def _layer(root: Path, module: Module) -> Layer | None:
    if module.kind == "Dropout":
        return None
    config = _read(root / module.folder / "config.json")
    names = (config.get("module_input_name") or _SENTENCE, config.get("module_output_name") or _SENTENCE)
    if module.kind not in _LAYERS or names != (_SENTENCE, _SENTENCE):
        raise ModelError(f"{root / MODULES}: its {module.kind} is not known here; write evaluation.examples=0")
    return _LAYERS[module.kind](root / module.folder, config)


def _normalize(folder: Path, config: dict[str, Any]) -> Layer:
    return lambda pooled: normalize(pooled, p=2, dim=1)


def _dense(folder: Path, config: dict[str, Any]) -> Layer:
    tensors = _tensors(folder)
    weight, bias, across = tensors["linear.weight"], tensors.get("linear.bias"), tensors.get("residual.weight")
    activation, residual = _activation(config), bool(config.get("use_residual"))

    def dense(pooled: Tensor) -> Tensor:
        given = pooled.float()
        shift = None if bias is None else bias.to(given.device)
        found: Tensor = activation(linear(given, weight.to(given.device), shift))
        if not residual:
            return found
        return found + (given if across is None else linear(given, across.to(given.device)))

    return dense


def _activation(config: dict[str, Any]) -> Any:
    """A module of torch's by its name; tanh for any other, as sentence-transformers takes it."""
    path = str(config.get("activation_function", ""))
    kind = getattr(nn, path.rpartition(".")[2], None) if path.startswith("torch.") else None
    return kind() if isinstance(kind, type) and issubclass(kind, nn.Module) else nn.Tanh()


def _norm(folder: Path, config: dict[str, Any]) -> Layer:
    tensors = _tensors(folder)
    weight, bias = tensors["norm.weight"], tensors["norm.bias"]

    def norm(pooled: Tensor) -> Tensor:
        given = pooled.float()
        return layer_norm(given, weight.shape, weight.to(given.device), bias.to(given.device))

    return norm


def _tensors(folder: Path) -> dict[str, Tensor]:
    return {
        name: tensor.float()
        for shard in open_shards(folder)
        for name, tensor in stored_tensors(shard.path, list(shard.shapes))
    }


_LAYERS: dict[str, Callable[[Path, dict[str, Any]], Layer]] = {
    "Normalize": _normalize,
    "Dense": _dense,
    "LayerNorm": _norm,
}


def _first(states: Tensor, mask: Tensor) -> Tensor:
    return states[torch.arange(len(states)), mask.int().argmax(1)]


def _last(states: Tensor, mask: Tensor) -> Tensor:
    places = torch.arange(mask.shape[1], device=mask.device)
    return states[torch.arange(len(states)), (places * (mask > 0)).argmax(1)]


def _largest(states: Tensor, mask: Tensor) -> Tensor:
    return states.masked_fill(mask.unsqueeze(-1) == 0, -torch.inf).max(1).values


def _mean(states: Tensor, mask: Tensor) -> Tensor:
    return _weighted(states, mask) / mask.sum(1, keepdim=True).clamp(min=1e-9)


def _mean_by_root(states: Tensor, mask: Tensor) -> Tensor:
    return _weighted(states, mask) / mask.sum(1, keepdim=True).clamp(min=1e-9).sqrt()


def _mean_by_place(states: Tensor, mask: Tensor) -> Tensor:
    return _mean(states, mask * torch.arange(1, mask.shape[1] + 1, device=mask.device))


def _weighted(states: Tensor, weights: Tensor) -> Tensor:
    return (states * weights.unsqueeze(-1).to(states.dtype)).sum(1)


_POOL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cls": _first,
    "max": _largest,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_by_root,
    "weightedmean": _mean_by_place,
    "lasttoken": _last,
}


def _read(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file, an empty one where there is none; ModelError for one that cannot be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: is no JSON ({error}); download the model again") from None
    return found if isinstance(found, dict) else {}
