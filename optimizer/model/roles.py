"""Where each tensor of a checkpoint stands in the model, and so what it is for."""

from collections.abc import Iterable

from torch import nn
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key
from transformers.pytorch_utils import Conv1D

from optimizer.model.weight import Place, Role

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def places(model: PreTrainedModel, names: Iterable[str]) -> dict[str, Place]:
    """The place of each checkpoint tensor that the model knows, by the renamings that transformers loads it with.

    Tensors that transformers merges into one parameter while loading (mixture-of-experts weights) get the place of
    that parameter.
    """
    conversions = get_model_conversion_mapping(model)
    renamings = [entry for entry in conversions if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in conversions if isinstance(entry, WeightConverter)]
    state = model.state_dict()
    found = {}
    for name in names:
        renamed, merged = rename_source_key(name, renamings, converters, model.base_model_prefix, state)
        if renamed in state:
            found[name] = _place(model, renamed, merged is not None)
    return found


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a matrix product with a weight: a Linear, or GPT-2's Conv1D."""
    return isinstance(module, (nn.Linear, Conv1D))


def _place(model: PreTrainedModel, parameter: str, merged: bool) -> Place:
    path, _, leaf = parameter.rpartition(".")
    module = model.get_submodule(path)
    role: Role = "linear" if merged and leaf != "bias" else _role(module, leaf)
    return Place(parameter, path, role, 0 if isinstance(module, Conv1D) else -1)


def _role(module: nn.Module, leaf: str) -> Role:
    if leaf.endswith("bias"):
        return "bias"
    if "Norm" in type(module).__name__:
        return "norm"
    if leaf != "weight":
        return "other"
    if is_linear(module):
        return "linear"
    if isinstance(module, nn.Embedding):
        return "embedding"
    if isinstance(module, _CONVOLUTIONS):
        return "convolution"
    return "other"
