"""Answers drawn from a model's own distribution: what makes a gradient say how much its answers depend on a weight."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from optimizer.errors import StageError
from optimizer.model.task import Task, problem_of

TASKS: tuple[Task, ...] = (
    "sequence-classification",
    "token-classification",
    "question-answering",
    "masked-lm",
    "causal-lm",
    "encoder",
)
"""Those whose models answer texts in one pass, which is what calibration texts are for."""


def surprise(outputs: Any, task: Task, config: Any, draw: torch.Generator) -> Tensor:
    """Minus the log-likelihood of answers drawn from the model's own distribution, summed over the texts.

    Where it gives numbers, they are the means of normal distributions of variance 1.
    """
    match task:
        case "sequence-classification" if problem_of(config) == "number":
            return _normal(outputs.logits, draw)
        case "sequence-classification" if problem_of(config) == "set":
            chosen = torch.bernoulli(outputs.logits.detach().sigmoid(), generator=draw)
            return functional.binary_cross_entropy_with_logits(outputs.logits, chosen, reduction="sum")
        case "sequence-classification" | "token-classification" | "masked-lm" | "causal-lm":
            return _class(outputs.logits.flatten(0, -2), draw)
        case "question-answering":
            return _class(outputs.start_logits, draw) + _class(outputs.end_logits, draw)
        case "encoder":
            return _normal(outputs.last_hidden_state.mean(1), draw)
    raise StageError(f"a model for {task} has no calibration of this kind; remove the stage")


def _class(logits: Tensor, draw: torch.Generator) -> Tensor:
    chosen = torch.multinomial(logits.detach().softmax(-1), 1, generator=draw)[:, 0]
    return functional.cross_entropy(logits, chosen, reduction="sum")


def _normal(means: Tensor, draw: torch.Generator) -> Tensor:
    return (means * torch.randn(means.shape, generator=draw)).sum()
