"""The texts that a run calibrates on, as its format takes them, and the record of them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from optimizer.data.calibration import Calibration
from optimizer.engines.mixed_precision import Likeness
from optimizer.errors import EvaluationError
from optimizer.evaluation.agreement import agrees, cosine, divergence
from optimizer.evaluation.inputs import prepare
from optimizer.evaluation.job import Environment
from optimizer.evaluation.predict import decision, predict
from optimizer.evaluation.random_inputs import RandomInputs
from optimizer.formats.format import Calibrated
from optimizer.model.checkpoint import Checkpoint
from optimizer.model.embedding import Embedder, embedder
from optimizer.model.runnable import Runnable
from optimizer.model.task import Task
from optimizer.processes.processor import described


def calibrated(calibration: Calibration, original: Checkpoint, environment: Environment) -> Calibrated:
    """The texts, read and tokenized when the format asks for them.

    Asking raises EvaluationError for a model that does not take text.
    """

    def examples() -> list[dict[str, Tensor]]:
        inputs = prepare(original.directory, original.task, calibration.read(), environment.seed)
        if isinstance(inputs, RandomInputs):
            raise EvaluationError(
                "calibration: this model has no tokenizer, so nothing can be calibrated; choose another recipe"
            )
        tokens = inputs.examples(None).values()
        return [_alone(example) for example in tokens]

    embeds = None
    if original.task == "encoder" and original.model.main_input_name == "input_ids":
        embeds = embedder(original.directory, calibration.data.pooling)
    compared = likeness(original.task, original.model.config, embeds)
    return Calibrated(examples, compared, calibration_record(calibration, environment))


def likeness(task: Task, config: Any, embeds: Embedder | None = None) -> Likeness:
    """Answers as an evaluation asks for them and compares them; the texts of a batch are of one length.

    Scores are as near as the probabilities that they are the logits of.
    """
    decides = decision(task, config)

    def ask(model: Runnable, batch: dict[str, Tensor]) -> Tensor:
        return predict(task, model, batch, embedder=embeds).logits

    if decides == "vector":
        return Likeness(ask, agrees=cosine, divergence=lambda one, other: 1 - cosine(one, other))
    if decides == "number":
        return Likeness(
            ask,
            agrees=lambda one, other: 1 - (one.sigmoid() - other.sigmoid()).abs().flatten(1).mean(1),
            divergence=lambda one, other: divergence(one, other, "set"),
        )
    return Likeness(
        ask,
        agrees=lambda one, other: agrees(one, other, decides),
        divergence=lambda one, other: divergence(one, other, decides),
    )


def _alone(example: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One text as a batch of its own, complete for any model."""
    batch = {name: values.unsqueeze(0) for name, values in example.items()}
    ids = batch["input_ids"]
    return {"token_type_ids": torch.zeros_like(ids), **batch, "attention_mask": torch.ones_like(ids)}


def calibration_record(calibration: Calibration, environment: Environment) -> dict[str, Any]:
    """What decides the figures that come of it: the texts, and what they are run through the model on."""
    return {
        "texts": calibration.fingerprint,
        "examples": calibration.examples,
        "threads": environment.threads,
        "device": environment.device,
        "processor": described(),
    }
