"""How long one forward pass takes, original and artifact side by side."""

import statistics
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import trange

from optimizer.evaluation.job import EvaluationSettings
from optimizer.evaluation.models import Pair
from optimizer.evaluation.predict import forward_inputs
from optimizer.evaluation.tally import Figures
from optimizer.model.task import Task

_MILLISECONDS = 1e3


def measure(pair: Pair, task: Task, block: dict[str, Tensor], settings: EvaluationSettings) -> Figures:
    """The row's latencies of one batch `block` in milliseconds, and the ratio of their medians.

    The two take turns, and take turns in who goes first, so that a machine that slows down slows down both.
    """
    models = pair.original, pair.artifact
    inputs = [forward_inputs(task, model, block) for model in models]
    times: tuple[list[float], list[float]] = ([], [])
    for repetition in trange(
        settings.warmup + settings.repetitions, desc="latency", unit="run", leave=False, disable=None
    ):
        for turn in (0, 1) if repetition % 2 == 0 else (1, 0):
            seconds = _timed(models[turn], inputs[turn])
            if repetition >= settings.warmup:
                times[turn].append(seconds * _MILLISECONDS)
    original, artifact = times
    return {
        "latency_ms_p50": statistics.median(artifact),
        "latency_ms_p95": float(np.percentile(artifact, 95)),
        "original_latency_ms_p50": statistics.median(original),
        "speedup": statistics.median(original) / statistics.median(artifact),
    }


@torch.inference_mode()
def _timed(model: Any, inputs: dict[str, Tensor]) -> float:
    """Seconds for one forward pass, whatever it left to do on a CUDA device included."""
    start = time.perf_counter()
    model(**inputs)
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter() - start
