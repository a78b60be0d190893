"""Bring the two models into this process, on the device that a run names."""

import logging
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from optimizer.data.texts import Pooling, Texts
from optimizer.data.tokens import TokenInputs
from optimizer.errors import EvaluationError
from optimizer.evaluation.inputs import Inputs, prepare, prepare_artifact
from optimizer.evaluation.job import Environment, Job
from optimizer.evaluation.predict import Prediction, predict
from optimizer.loading import load
from optimizer.model.embedding import Embedder, embedder
from optimizer.model.runnable import Runnable
from optimizer.model.task import Task

_TALKATIVE = ("bitsandbytes", "accelerate", "torch")


def quiet() -> None:
    """Silence what a user cannot act on: bars of loading, warnings, bitsandbytes' line in every forward."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")


def set_up(environment: Environment) -> None:
    """Prepare this process, which has no other purpose, to compute as `environment` says.

    Raises EvaluationError when the device is not there.
    """
    quiet()
    torch.set_num_threads(environment.threads)
    device = torch.device(environment.device)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise EvaluationError(
            f"device: '{environment.device}' is not there ({torch.cuda.device_count()} CUDA devices); write device=cpu"
        )


def load_on(directory: Path, task: Task, environment: Environment, pad_id: int | None = None) -> Runnable:
    """The model in `directory` on the run's device, of which only the encoder where the task is to encode.

    Weights that the files lack are drawn from the run's seed. `pad_id` becomes the configuration's where that
    has none: classifiers built on language models refuse batches otherwise.
    """
    torch.manual_seed(environment.seed)
    model: Any = load(directory, device_map={"": environment.device})
    text_config = model.config.get_text_config()
    if getattr(text_config, "pad_token_id", None) is None:
        text_config.pad_token_id = pad_id
    encodes = task == "encoder" and model.config.is_encoder_decoder and hasattr(model, "get_encoder")
    runnable: Runnable = model.get_encoder() if encodes else model
    return runnable


@dataclass(frozen=True)
class Side:
    """One of the two models, loaded when it is first asked for, and what it is asked; `pooling` is that of the data."""

    directory: Path
    task: Task
    environment: Environment
    inputs: Inputs
    pooling: Pooling | None = None

    @cached_property
    def embedder(self) -> Embedder | None:
        """What makes one vector of the tokens of a text; None for a model that answers otherwise, or takes no text."""
        if self.task != "encoder" or not isinstance(self.inputs, TokenInputs):
            return None
        return embedder(self.directory, self.pooling)

    def ask(self, inputs: dict[str, Tensor], decoder_ids: Tensor | None = None) -> Prediction:
        """The model's answer to one batch; see `predict`."""
        return predict(self.task, self.model, inputs, decoder_ids, self.embedder)

    @cached_property
    def model(self) -> Runnable:
        """The model, as loaded from disk, ready for inference."""
        return load_on(self.directory, self.task, self.environment, self.inputs.pad_id)


def sides(job: Job, texts: Texts) -> tuple[Side, Side]:
    """The original and the artifact of a job, each with its own tokenizer's inputs; the same ones where that is one."""
    inputs = prepare(job.original, job.task, texts, job.environment.seed)
    own = prepare_artifact(job.artifact, job.original, job.task, inputs)
    return (
        Side(job.original, job.task, job.environment, inputs, job.data.pooling),
        Side(job.artifact, job.task, job.environment, own, job.data.pooling),
    )
