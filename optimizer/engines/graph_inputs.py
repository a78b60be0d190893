"""What goes into a graph and what comes out of it, by transformers' names and in a fixed order."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from optimizer.errors import first_line

OUTPUTS = ("logits", "start_logits", "end_logits", "last_hidden_state", "pooler_output")
"""The names that a graph's outputs may have, in the order in which they come."""

_PLACES = re.compile(r"(Check '[^']*' failed at \S+:|Exception from \S+:|FrontEnd API failed with \w+:)\s*")
_DETAILS = " Failed operations detailed log"  # of all that the one that OpenVINO does not know leads to


class Flat(nn.Module):
    """A model as exporters want it: tensors in the order of `inputs`, a tuple of those that `outputs` names."""

    def __init__(self, model: nn.Module, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.inputs, self.outputs = model, inputs, outputs

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The outputs, for one tensor for each name in `inputs`."""
        answer = self.model(**dict(zip(self.inputs, tensors, strict=True)))
        if isinstance(answer, Tensor):
            return (answer,)
        return answer if type(answer) is tuple else tuple(getattr(answer, name) for name in self.outputs)


@torch.no_grad()
def flat(model: nn.Module, example_inputs: Mapping[str, Tensor]) -> Flat:
    """The model with the outputs that it gives for `example_inputs` `[batch, length]` in a fixed order.

    A model that names them in `outputs` gives a tensor or a tuple, any other a transformers ModelOutput.
    """
    outputs = getattr(model, "outputs", None)
    if outputs is None:
        answer: Any = model(**example_inputs)
        outputs = [name for name in OUTPUTS if isinstance(getattr(answer, name, None), Tensor)]
    return Flat(model, tuple(example_inputs), tuple(outputs)).eval()


def cannot_convert(engine: str, model: nn.Module, error: Exception) -> str:
    """The line for a model that an engine's exporter does not follow, without its places in the exporter's source."""
    kind = type(getattr(model, "model", model)).__name__
    reason = _PLACES.sub("", first_line(error)).partition(_DETAILS)[0].rstrip(". ")
    return f"{engine}: cannot convert {kind}: {reason}; write recipe=compact"
