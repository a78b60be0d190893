"""How much a model's answers depend on each of its matrices: figures of its behaviour on calibration texts.

The diagonal of the Fisher information, of a linear module's outputs and of the rows of what is looked up; answers are
drawn from the model's own distribution, so that no labels are needed. Kunstner et al., Limitations of the Empirical
Fisher Approximation (2019).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from optimizer.calibration.answers import surprise
from optimizer.errors import StageError
from optimizer.model.examples import Examples, input_names, of_one_length
from optimizer.model.task import Task

_DRAWS = 2  # answers drawn for each text: a second halves the noise for half as much time again
_BATCH = 32
_FLOOR = 0.1  # of the mean over outputs
_LARGEST = 1 << 25
"""Numbers that a batch's answers may be: a language model has some ten thousand for each token."""


@dataclass(frozen=True)
class Linear:
    """Of a linear module: float32 second moments of its inputs `[in, in]`, and of each output `[out]` how much it
    matters: squared gradients, summed over a text, on average. A change E of the weight then moves the answers by about
    half of the sum over outputs i of outputs[i] E[i] inputs E[i]^T, in nats.
    """

    inputs: Tensor
    outputs: Tensor

    @property
    def needs(self) -> Tensor:
        """How much each output counts, float64: the least is a share of the mean, because a large change is no small
        one.
        """
        matters = self.outputs.double()
        return matters + _FLOOR * matters.mean()

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether it is of a matrix of this shape, `[out, in]`."""
        return tuple(shape) == (len(self.outputs), len(self.inputs))


@dataclass(frozen=True)
class Rows:
    """Of another matrix, for each row: the mean over its values of squared gradients of a text, and how often the row
    was looked up in a text, both on average.
    """

    gradients: Tensor
    seen: Tensor


@dataclass(frozen=True)
class Statistics:
    """By the paths of modules in the model; `texts` says of how many texts."""

    texts: int
    linear: Mapping[str, Linear]
    rows: Mapping[str, Rows]


@dataclass
class _Call:
    """One of the times that a module is called in a forward pass; modules that are called more often than once see
    inputs of several kinds, which are weighed by how much they matter.
    """

    inputs: Tensor
    outputs: Tensor
    tokens: int = 0


@dataclass
class _Seen:
    """What hooks have seen in the latest forward pass, `made` by linear modules and `found` in tables; the figures so
    far.
    """

    made: list[tuple[tuple[str, int], Tensor, Tensor]] = field(default_factory=list)
    found: list[tuple[str, Tensor, Tensor]] = field(default_factory=list)
    calls: dict[tuple[str, int], _Call] = field(default_factory=dict)
    squares: dict[str, Tensor] = field(default_factory=dict)
    looked_up: dict[str, Tensor] = field(default_factory=dict)


def statistics(model: Any, task: Task, examples: Examples) -> Statistics:
    """The statistics of a model in float32 and in memory; it needs no gradients any more afterwards.

    `examples` are texts as token ids, `[1, tokens]` by the names of the model's inputs. Nothing but the figures and one
    batch is held. The same on the same number of threads. StageError for a model whose answers are not finite.
    """
    draw = torch.Generator().manual_seed(0)
    tables = {name: module for name, module in model.named_modules() if isinstance(module, nn.Embedding)}
    seen = _Seen(
        squares={name: torch.zeros(module.num_embeddings) for name, module in tables.items()},
        looked_up={name: torch.zeros(module.num_embeddings) for name, module in tables.items()},
    )
    names = input_names(model)
    model.requires_grad_(False)
    with _watched(model, seen):
        model(**{name: examples[0][name] for name in names})
        # A table that is not looked up in is a matrix that others multiply.
        whole = {name: module for name, module in tables.items() if name not in {found for found, _, _ in seen.found}}
        for module in whole.values():
            module.weight.requires_grad_()
        for batch in _batches(examples, model.config):
            seen.made.clear()
            seen.found.clear()
            outputs = model(**{name: batch[name] for name in names})
            for left in reversed(range(_DRAWS)):
                _backward(surprise(outputs, task, model.config, draw), seen, _weights(whole), again=left > 0)
                _add_linear(seen, last=left == 0)
                _add_rows(seen, len(batch["input_ids"]), last=left == 0)
                _add_whole(seen, whole)
    for weight in _weights(whole):
        weight.grad = None
    return _figures(model, tables, seen, len(examples))


def _backward(loss: Tensor, seen: _Seen, weights: Sequence[Tensor], *, again: bool) -> None:
    """The gradients of a loss alone at all that was seen and at `weights`; `again` says that another loss follows."""
    for values in (*(made for _, _, made in (*seen.made, *seen.found)), *weights):
        values.grad = None
    if not loss.isfinite():
        raise StageError("the model's answers to the calibration texts are not finite; remove the stage")
    torch.autograd.backward(loss, retain_graph=again)


def _batches(examples: Examples, config: Any) -> Iterator[dict[str, Tensor]]:
    """Texts of one length, fewer the more numbers their answers may be."""
    for batch in of_one_length(examples, _BATCH):
        numbers = batch["input_ids"].shape[1] * getattr(config, "vocab_size", 1)
        together = max(1, min(_BATCH, _LARGEST // numbers))
        for start in range(0, len(batch["input_ids"]), together):
            yield {name: values[start : start + together] for name, values in batch.items()}


def _figures(model: Any, tables: Mapping[str, nn.Embedding], seen: _Seen, texts: int) -> Statistics:
    linear = dict(_linear(seen, texts * _DRAWS))
    rows = {}
    for name, module in tables.items():
        squares = seen.squares[name] / (texts * _DRAWS)
        for other, of in linear.items():
            if model.get_submodule(other).weight is module.weight:  # answers are made of it too
                squares += of.outputs * of.inputs.diagonal().mean()
        if squares.any():
            rows[name] = Rows(squares, seen.looked_up[name] / texts)
    return Statistics(texts, linear, rows)


def _weights(tables: Mapping[str, nn.Embedding]) -> list[Tensor]:
    return [module.weight for module in tables.values()]


def _add_linear(seen: _Seen, *, last: bool) -> None:
    """Add what one backward pass has shown; inputs once for all draws, after the last."""
    for call, inputs, made in seen.made:
        if made.grad is None:  # decides nothing
            continue
        given, gradients = inputs.flatten(0, -2), made.grad.flatten(0, -2)
        one = seen.calls.setdefault(call, _Call(_zeros(given.shape[1], given.shape[1]), _zeros(gradients.shape[1])))
        one.outputs += gradients.square().sum(0)
        if last:
            one.inputs += given.T @ given
            one.tokens += len(given)


def _add_rows(seen: _Seen, texts: int, *, last: bool) -> None:
    """The same of the rows of tables: the gradients of a row that a text looks up several times are of one sign."""
    for name, ids, made in seen.found:
        if made.grad is None:
            continue
        count = len(seen.squares[name])
        own = torch.arange(len(ids))[:, None] * count + ids.flatten(1)
        places, order = torch.unique(own.flatten(), return_inverse=True)
        sums = _zeros(len(places), made.shape[-1]).index_add_(0, order, made.grad.flatten(0, -2))
        seen.squares[name].index_add_(0, places % count, sums.square().mean(1))
        if last:
            # One row of positions serves all texts of a batch.
            times = texts / len(ids)
            seen.looked_up[name] += torch.bincount(ids.flatten(), minlength=count) * times


def _add_whole(seen: _Seen, tables: Mapping[str, nn.Embedding]) -> None:
    """The same of tables that are multiplied whole."""
    for name, module in tables.items():
        if module.weight.grad is not None:
            seen.squares[name] += module.weight.grad.square().mean(1)


def _linear(seen: _Seen, share: int) -> Iterator[tuple[str, Linear]]:
    for name in dict.fromkeys(name for name, _ in seen.calls):
        calls = [call for (of, _), call in seen.calls.items() if of == name]
        weights = [float(call.outputs.sum()) for call in calls]
        if not sum(weights):
            continue
        parts = zip(weights, calls, strict=True)
        inputs = torch.stack([call.inputs * (weight / call.tokens / sum(weights)) for weight, call in parts]).sum(0)
        yield name, Linear(inputs, torch.stack([call.outputs for call in calls]).sum(0) / share)


def _zeros(*shape: int) -> Tensor:
    return torch.zeros(shape)


@contextmanager
def _watched(model: nn.Module, seen: _Seen) -> Iterator[None]:
    """Fill `seen` in each forward pass, and keep the gradients of what linear modules make and what tables give."""
    # Gradients of what modules make are wanted, not of their weights, which cost as much again.
    names = {module: name for name, module in model.named_modules()}

    def linear(module: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        if made.requires_grad:
            made.retain_grad()
            call = sum(name == names[module] for (name, _), _, _ in seen.made)
            seen.made.append(((names[module], call), given[0].detach(), made))

    def table(module: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> Tensor:
        made.requires_grad_()
        seen.found.append((names[module], given[0], made))
        return made.clone()  # what comes after may change it in place

    kinds: list[tuple[nn.Module, Any]] = [(module, linear) for module in names if is_linear(module)]
    kinds += [(module, table) for module in names if isinstance(module, nn.Embedding)]
    hooks = [module.register_forward_hook(hook) for module, hook in kinds]
    try:
        with torch.enable_grad():
            yield
    finally:
        for hook in hooks:
            hook.remove()
        model.requires_grad_(False)


def is_linear(module: nn.Module) -> bool:
    """Whether a module multiplies its inputs' last axis with a matrix, however it stores it."""
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
