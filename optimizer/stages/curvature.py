"""How much a linear module's outputs decide: the curvature of what a model answers, from calibration texts.

The Fisher information in Kronecker factors: Martens and Grosse, Optimizing Neural Networks with Kronecker-factored
Approximate Curvature (2015). Answers are drawn from the model's own distribution, so no labels are needed.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from optimizer.calibration.answers import surprise
from optimizer.errors import StageError
from optimizer.model.examples import Examples, input_names, of_one_length
from optimizer.model.task import Task

_DRAWS = 2  # answers drawn for each text: a second halves the noise for half as much time again
_BATCH = 32


@dataclass
class Curvature:
    """Of a module with `in` inputs and `out` outputs, float64 [in, in] and [out, out].

    `inputs` are second moments of its inputs, each token weighed by the squared gradient of its outputs; `gradients`
    are those of that gradient, summed over a text. An error E of the weight then moves the answers by about half of
    trace(gradients E inputs E^T) nats. `deciding` is the share of tokens whose outputs decide anything: where a model
    answers by its first token, few in its last layer.
    """

    inputs: Tensor
    gradients: Tensor
    weight: float = 0.0
    tokens: int = 0
    decided: int = 0

    @property
    def deciding(self) -> float:
        """The share of tokens whose outputs decide anything."""
        return self.decided / max(self.tokens, 1)


def curvatures(model: Any, task: Task, modules: Collection[str], examples: Examples) -> dict[str, Curvature]:
    """The curvature at each of the linear `modules` of a model in float32, by their paths; the model needs no gradients
    any more afterwards.

    `examples` are texts as token ids, `[1, tokens]` by the names of the model's inputs. The same on the same number of
    threads.
    """
    draw = torch.Generator().manual_seed(0)
    found: dict[str, Curvature] = {}
    names = input_names(model)
    with _watched(model, modules) as seen:
        for batch in of_one_length(examples, _BATCH):
            outputs = model(**{name: batch[name] for name in names})
            for last in (*[False] * (_DRAWS - 1), True):
                loss = surprise(outputs, task, model.config, draw)
                for _, made in seen.values():
                    made.grad = None
                if not loss.isfinite():
                    raise StageError("the model's answers to the calibration texts are not finite; remove the stage")
                torch.autograd.backward(loss, retain_graph=not last)
                for name, (inputs, made) in seen.items():
                    assert made.grad is not None
                    _add(found, name, inputs.flatten(0, 1), made.grad.flatten(0, 1))
    for each in found.values():
        each.inputs /= max(each.weight, torch.finfo(torch.float64).tiny)
        each.gradients /= len(examples) * _DRAWS
    return found


def _add(found: dict[str, Curvature], name: str, inputs: Tensor, gradients: Tensor) -> None:
    weights = gradients.square().sum(-1)
    kept = weights > 0
    inputs, gradients, weights = inputs[kept], gradients[kept], weights[kept]
    if name not in found:
        found[name] = Curvature(_square(inputs.shape[1]), _square(gradients.shape[1]))
    one = found[name]
    one.inputs += (inputs * weights[:, None]).T @ inputs
    one.gradients += gradients.T @ gradients
    one.weight += weights.double().sum().item()
    one.tokens += len(kept)
    one.decided += int(kept.sum())


def _square(size: int) -> Tensor:
    return torch.zeros(size, size, dtype=torch.float64)


@contextmanager
def _watched(model: nn.Module, modules: Collection[str]) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """What each module was given and has made in the latest forward pass; gradients of the latter are kept."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            output.retain_grad()
            seen[name] = inputs[0].detach(), output

        return hook

    hooks = [model.get_submodule(name).register_forward_hook(watch(name)) for name in modules]
    # Gradients of outputs are wanted, not of weights, which cost as much again.
    model.requires_grad_(False)
    embeddings: Any = model
    hooks.append(embeddings.get_input_embeddings().register_forward_hook(lambda *given: given[-1].requires_grad_()))
    try:
        with torch.enable_grad():
            yield seen
    finally:
        for hook in hooks:
            hook.remove()
