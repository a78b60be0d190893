"""What models answer; `answers` is what a process does that has made nothing: it loads artifacts and asks them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

import optimizer

Inputs = Mapping[str, Tensor]

_DECISIVE = (
    ("logits",),
    ("logits_per_image",),
    ("start_logits", "end_logits"),
    ("last_hidden_state", "pooler_output"),
)


@torch.no_grad()
def answer(model: Any, inputs: Inputs, dense: Mapping[str, Tensor] | None = None) -> Tensor:
    """What a model says, `[batch, values]` in float32: the first of these groups of outputs that it has.

    With a `dense` layer beside it, what sentence-transformers makes of both: of the mean over tokens, its tanh.
    """
    output = model(**{name: _for(model, values) for name, values in inputs.items()})
    if dense is not None:
        said = inputs["attention_mask"].unsqueeze(-1)
        mean = (output.last_hidden_state.float() * said).sum(1) / said.sum(1)
        return (mean @ dense["linear.weight"].float().T + dense["linear.bias"].float()).tanh()
    names = next(names for names in _DECISIVE if getattr(output, names[0], None) is not None)
    found = [getattr(output, name, None) for name in names]
    return torch.cat([values.float().flatten(1) for values in found if values is not None], dim=1)


def answers(artifacts: Mapping[str, Path], inputs: Inputs) -> dict[str, Any]:
    """For each artifact, by any name, its answer as lists, or the line of the error that it ends with."""
    found: dict[str, Any] = {}
    for name, directory in artifacts.items():
        try:
            found[name] = answer(optimizer.load(directory), inputs, dense_beside(directory)).tolist()
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"
    return found


def dense_beside(directory: Path) -> dict[str, Tensor] | None:
    """The layer that a sentence-transformers directory has beside its model."""
    path = directory / "2_Dense" / "model.safetensors"
    return load_file(path) if path.exists() else None


def _for(model: Any, values: Tensor) -> Tensor:
    """Images and sound in the precision that the model computes in."""
    return values.to(model.dtype) if values.is_floating_point() else values
