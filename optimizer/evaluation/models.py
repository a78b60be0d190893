"""Bring the two models into this process, on the device that a run names."""

import json
import logging
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import transformers

from optimizer.errors import EvaluationError
from optimizer.evaluation.job import Environment
from optimizer.model.loading import load
from optimizer.model.task import Task, auto_class

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


def on_meta(directory: Path, task: Task) -> Any:
    """The model of a directory without any values: its configuration, its class and its shapes, at no memory."""
    config = transformers.AutoConfig.from_pretrained(directory)
    with torch.device("meta"):
        return auto_class(task).from_config(config)


def load_on(directory: Path, task: Task, environment: Environment, pad_id: int | None = None) -> Any:
    """The model in `directory` on the run's device, of which only the encoder where the task is to encode.

    Weights that the files lack are drawn from the run's seed. `pad_id` becomes the configuration's where that
    has none: classifiers built on language models refuse batches otherwise.
    """
    torch.manual_seed(environment.seed)
    if "quantization_config" in json.loads((directory / "config.json").read_text(encoding="utf-8")):
        model = load(directory, device_map={"": environment.device})
    else:
        model = load(directory).to(environment.device)
    text_config = model.config.get_text_config()
    if getattr(text_config, "pad_token_id", None) is None:
        text_config.pad_token_id = pad_id
    if task == "encoder" and model.config.is_encoder_decoder:
        return model.get_encoder()
    return model


@dataclass(frozen=True)
class Pair:
    """Original and artifact, each loaded when it is first asked for."""

    original_directory: Path
    artifact_directory: Path
    task: Task
    environment: Environment
    pad_id: int

    def load(self) -> None:
        """Load both now."""
        _ = self.original, self.artifact

    @cached_property
    def original(self) -> Any:
        """The original, ready for inference."""
        return load_on(self.original_directory, self.task, self.environment, self.pad_id)

    @cached_property
    def artifact(self) -> Any:
        """The artifact as reloaded from disk, ready for inference."""
        return load_on(self.artifact_directory, self.task, self.environment, self.pad_id)
