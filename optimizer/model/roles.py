"""Where each tensor of a checkpoint stands in the model, and so what it is for."""

from collections.abc import Iterable

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from optimizer.model import internals
from optimizer.model.weight import Place, Role

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_MATRICES: dict[str, dict[str, int]] = {
    "MultiheadAttention": dict.fromkeys(("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"), -1),
    "XLNetRelativeAttention": {"q": 0, "k": 0, "v": 0, "r": 0, "o": -1},  # [width, heads, head]
    "FunnelRelMultiheadAttention": {"r_kernel": 0},  # [width, heads, head]
    "GroupedLinearLayer": {"weight": -2},  # [groups, inputs, outputs], of ConvBERT
    "DbrxExpertGLU": {"w1": -1, "v1": -1, "w2": -1},  # [experts x inner, width]: one for all of them
    "JetMoeParallelExperts": {"weight": -1},  # [experts, outputs, inputs]
    "Llama4TextExperts": {"gate_up_proj": -2, "down_proj": -2},  # [experts, inputs, outputs]
}
"""Linear weights that are no layer's `weight`, by the class of their module: the axis that each multiplies."""
_EXPERTS = ("gate_up_proj", "gate_proj", "up_proj", "down_proj")  # of all experts of a layer, in one tensor
_PARAMETRIZED = ("original", "original1")  # what torch's parametrizations make a weight of; original0 is but its norms


def places(model: PreTrainedModel, names: Iterable[str]) -> dict[str, Place]:
    """The place of each checkpoint tensor that the model knows, by the renamings that transformers loads it with.

    Tensors that transformers merges into one parameter while loading (mixture-of-experts weights) get the place of
    that parameter.
    """
    return {name: _place(model, parameter) for name, parameter in internals.renamed(model, names).items()}


def place_in_module(kind: str, name: str, axes: int) -> Place:
    """The place of a weight of a sentence-transformers module of this class, by its name and its number of axes."""
    path, _, leaf = name.rpartition(".")
    matrix: Role = "linear" if kind == "Dense" and axes == 2 else "other"
    return Place(name, path, "bias" if leaf.endswith("bias") else matrix, -1)


def linear_modules(model: PreTrainedModel, *, has_head: bool) -> dict[str, str | None]:
    """Every linear module of a model, with the reason why a quantizer leaves it alone; None where it need not.

    `has_head` says that what the model is for is more than to encode.
    """
    linear = [name for name, module in model.named_modules() if _is_linear(module)]
    output = model.get_output_embeddings()
    tied = {name.rpartition(".")[0] for pair in internals.ties(model).items() for name in pair}
    precise = internals.precise(model)
    reasons: dict[str, str | None] = dict.fromkeys(linear)
    if bodies := _bodies(model, has_head=has_head):
        outside = [name for name in linear if not name.startswith(bodies)]
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


def _bodies(model: PreTrainedModel, *, has_head: bool) -> tuple[str, ...]:
    """What the paths of a model's modules begin with but for its head's: its base model, else the models in it."""
    if model.base_model is not model:
        return (f"{model.base_model_prefix}.",)
    within = [name for name, module in model.named_children() if isinstance(module, PreTrainedModel)]
    return tuple(f"{name}." for name in within) if has_head else ()


def _is_linear(module: nn.Module) -> bool:
    """Whether a module is a matrix product with a weight: a Linear, or GPT-2's Conv1D."""
    return isinstance(module, (nn.Linear, Conv1D))


def _place(model: PreTrainedModel, parameter: str) -> Place:
    path, _, leaf = parameter.rpartition(".")
    owner, _, parametrized = path.partition(".parametrizations.")
    module = model.get_submodule(owner)
    if parametrized and leaf in _PARAMETRIZED:
        leaf = parametrized
    return Place(parameter, path, *_use(module, leaf))


def _use(module: nn.Module, leaf: str) -> tuple[Role, int]:
    """The role of a module's parameter, and the axis that it multiplies if it is a linear weight."""
    if leaf.endswith("bias"):
        return "bias", -1
    if "Norm" in type(module).__name__:
        return "norm", -1
    matrices = _MATRICES.get(type(module).__name__, {})
    if leaf in matrices:
        return "linear", matrices[leaf]
    if leaf in _EXPERTS:
        return "linear", -2 if internals.are_transposed(module) else -1
    if leaf != "weight":
        return "other", -1
    if _is_linear(module):
        return "linear", 0 if isinstance(module, Conv1D) else -1
    if isinstance(module, nn.Embedding):
        return "embedding", -1
    return "convolution" if isinstance(module, _CONVOLUTIONS) else "other", -1
