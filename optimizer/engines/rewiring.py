"""A model with one module exchanged, that shares every weight with the model it was made of."""

import copy

import torch
from torch import nn


def replaced(model: nn.Module, path: str, module: nn.Module) -> nn.Module:
    """A twin of `model` that has `module` at `path`; the modules along the path are copied, without their weights."""
    name, _, rest = path.partition(".")
    twin = copy.copy(model)
    children = dict(model._modules)
    child = children[name]
    assert child is not None, f"{path}: no such module"
    children[name] = replaced(child, rest, module) if rest else module
    # nn.Module's own dictionary of children is the one thing that a shallow copy must not share.
    object.__setattr__(twin, "_modules", children)
    return twin


def linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    """A linear module of these tensors, `[outputs, inputs]` and `[outputs]`, which are not copied."""
    outputs, inputs = weight.shape
    module = nn.Linear(inputs, outputs, bias=bias is not None, device="meta")
    module.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        module.bias = nn.Parameter(bias, requires_grad=False)
    return module
