"""Where each tensor of a checkpoint stands in the model, and so what it is for."""

from collections.abc import Iterable

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from optimizer.model import internals
from optimizer.model.weight import Place, Role

_PROJECTIONS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")  # of nn.MultiheadAttention
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def places(model: PreTrainedModel, names: Iterable[str]) -> dict[str, Place]:
    """The place of each checkpoint tensor that the model knows, by the renamings that transformers loads it with.

    Tensors that transformers merges into one parameter while loading (mixture-of-experts weights) get the place of
    that parameter.
    """
    return {
        name: _place(model, parameter, merged) for name, (parameter, merged) in internals.renamed(model, names).items()
    }


def linear_modules(model: PreTrainedModel) -> dict[str, str | None]:
    """Every linear module of a model, with the reason why a quantizer leaves it alone; None where it need not."""
    linear = [name for name, module in model.named_modules() if _is_linear(module)]
    output = model.get_output_embeddings()
    tied = {name.rpartition(".")[0] for pair in internals.ties(model).items() for name in pair}
    precise = internals.precise(model)
    reasons: dict[str, str | None] = dict.fromkeys(linear)
    if model.base_model is not model:
        outside = [name for name in linear if not name.startswith(f"{model.base_model_prefix}.")]
        reasons.update(dict.fromkeys(outside[-1:], "it is the head"))
    for name in linear:
        if model.get_submodule(name) is output:
            reasons[name] = "it is the output"
        elif name in tied:
            reasons[name] = "its weight is tied to another"
        elif internals.is_left_out(name, precise):
            reasons[name] = "the model keeps it in float32"
        elif not internals.is_replaced(model.get_submodule(name)):
            reasons[name] = f"transformers quantizes no {type(model.get_submodule(name)).__name__}"
    return reasons


def _is_linear(module: nn.Module) -> bool:
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
    if isinstance(module, nn.MultiheadAttention) and leaf in _PROJECTIONS:
        return "linear"
    if leaf != "weight":
        return "other"
    if _is_linear(module):
        return "linear"
    if isinstance(module, nn.Embedding):
        return "embedding"
    if isinstance(module, _CONVOLUTIONS):
        return "convolution"
    return "other"
