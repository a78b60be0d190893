"""What the shipped recipes make of a model, written a second time and by hand: the answers that artifacts must give.

Nothing of the program is used here. transformers loads the original, the recipe's arithmetic is done on its parameters,
and transformers loads the outcome; 8-bit and 4-bit layers are those that it makes itself.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from torch import Tensor, nn
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

_PROJECTING = ("XLNetRelativeAttention", "FunnelRelMultiheadAttention")
_PROJECTIONS = ("q", "k", "v", "o", "r", "r_kernel")  # of three axes
_DENSE = {"linear.weight": "linear", "linear.bias": "other"}

Change = Callable[[str, Tensor], Tensor]
"""A role and a tensor of it in float32 to the tensor's new values."""


def _pruned(amount: float) -> Change:
    def change(role: str, values: Tensor) -> Tensor:
        if role != "linear":
            return values
        smallest = values.flatten().abs().argsort(stable=True)[: round(amount * values.numel())]
        return values.flatten().index_fill(0, smallest, 0).reshape(values.shape)

    return change


def _without_near_zeros(role: str, values: Tensor) -> Tensor:
    return torch.where(values.abs() < 1e-3, 0, values) if role == "linear" else values


def _embeddings_in_8_bits(role: str, values: Tensor) -> Tensor:
    if role != "embedding":
        return values
    scale = values.abs().amax(dim=1, keepdim=True) / 127
    return torch.where(scale > 0, _nearest(values / scale) * scale, 0)


def _stepped(step: float) -> Change:
    """Multiples of a step, in standard deviations of the matrix."""

    def change(role: str, values: Tensor) -> Tensor:
        if role not in ("linear", "embedding"):
            return values
        size = (values.double().std(correction=0).float() * step).item()
        return _nearest(values / size) * size

    return change


def _nearest(ratios: Tensor) -> Tensor:
    """The nearest integers, of two equally near the larger in magnitude."""
    return ratios.sign() * (ratios.abs() + 0.5).floor()


def _in(dtype: torch.dtype) -> Change:
    return lambda role, values: values.to(dtype).float()


_HALF = _in(torch.float16)


def _guides(amount: float) -> tuple[Change, ...]:
    return _pruned(amount), _without_near_zeros, _embeddings_in_8_bits, _HALF


CHANGES: dict[str, tuple[Change, ...]] = {
    "baseline": (),
    "fp16": (_HALF,),
    "packed_fp16": (_HALF,),
    "bf16": (_in(torch.bfloat16),),
    "pruned": (_pruned(0.3), _HALF),
    "int8": (),
    "nf4": (),
    "balanced": _guides(0.3),
    "aggressive": _guides(0.5),
    "support_desk": _guides(0.2),
    "compact": (_stepped(0.25), _HALF),
    "smallest_steps": (_stepped(0.25), _HALF),
    "smallest": (),
    "compact_int8": (_stepped(0.1), _HALF),
    "best": (),
    "int8_openvino": (),
    "int8_onnx": (),
    "fastest": (),
    "narrow_int8": (),
}
"""By recipe, in its order; what bitsandbytes does comes last and is transformers' matter."""


def encoder(directory: Path) -> Path:
    """The folder that transformers loads: of older sentence-transformers models one of its own."""
    older = directory / "0_Transformer"
    return older if older.exists() else directory


def staged(original: Path, changes: Sequence[Change], how: Mapping[str, Any], scratch: Path) -> PreTrainedModel:
    """The model with these changes made, loaded as `how` says, by `options`; `scratch` is a place for it."""
    config = json.loads((original / "config.json").read_text())
    kind = getattr(transformers, config["architectures"][0])
    model = kind.from_pretrained(original, dtype=torch.float32)
    # Beside bitsandbytes weights load as they are stored, and what transformers is to keep in float32 is stored so.
    beside = how["dtype"] == "float16" and how["quantization_config"]
    precise = set(model._keep_in_fp32_modules or ()) if beside else set()
    with torch.no_grad():
        for name, role, matrix in _tensors(model, one_by_one=_holds_experts_one_by_one(original)):
            values = matrix
            for change in changes:
                if change is not _HALF or precise.isdisjoint(name.split(".")):
                    values = change(role, values)
            matrix.copy_(values)
    model.save_pretrained(scratch)
    given: dict[str, Any] = {"dtype": getattr(torch, how["dtype"])}
    if how["quantization_config"]:
        given["quantization_config"] = BitsAndBytesConfig.from_dict(how["quantization_config"])
    loaded: PreTrainedModel = kind.from_pretrained(scratch, **given)
    return loaded.eval()


def staged_dense(dense: Mapping[str, Tensor] | None, changes: Sequence[Change]) -> dict[str, Tensor] | None:
    """The layer beside a sentence-transformers model with these changes made."""
    if dense is None:
        return None
    staged = dict(dense)
    for change in changes:
        staged = {name: change(_DENSE[name], values) for name, values in staged.items()}
    return staged


def options(artifact: Path) -> dict[str, Any]:
    """What config.json says of an artifact's precision, with its 8-bit and 4-bit layers by name; of a graph none."""
    config = json.loads((artifact / "config.json").read_text())
    quantization = config.get("quantization_config") or {}
    theirs = quantization.get("bitsandbytes", quantization if quantization.get("load_in_8bit") is not None else None)
    return {"dtype": config.get("dtype") or "float32", "quantization_config": theirs}


def _tensors(model: PreTrainedModel, *, one_by_one: bool) -> Iterator[tuple[str, str, Tensor]]:
    """Name, role and values of each tensor that the original's files hold by a name of its own, as views."""
    seen: set[int] = set()
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point() or tensor.data_ptr() in seen:
            continue
        seen.add(tensor.data_ptr())  # of tied ones the first, which is the embedding
        path, _, leaf = name.rpartition(".")
        module = model.get_submodule(path)
        for part in _experts(leaf, tensor) if one_by_one and _is_experts(module) else (tensor,):
            yield name, _role(module, leaf, tensor), part


def _experts(leaf: str, merged: Tensor) -> Iterator[Tensor]:
    """The matrices of which transformers makes one tensor when it loads them."""
    for expert in merged:
        yield from expert.chunk(2) if leaf == "gate_up_proj" else (expert,)


def _holds_experts_one_by_one(original: Path) -> bool:
    names: list[str] = []
    for path in original.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            names += file.keys()
    return any(".experts.0." in name for name in names)


def _role(module: nn.Module, leaf: str, tensor: Tensor) -> str:
    if isinstance(module, nn.Embedding):
        return "embedding"
    if isinstance(module, nn.Linear | Conv1D) and leaf == "weight":
        return "linear"
    is_projection = leaf == "in_proj_weight" or (type(module).__name__ in _PROJECTING and leaf in _PROJECTIONS)
    return "linear" if is_projection or (_is_experts(module) and tensor.dim() > 2) else "other"


def _is_experts(module: nn.Module) -> bool:
    return type(module).__name__.endswith("Experts")
