"""How long one forward pass takes, original and artifact side by side."""

import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from tqdm import trange

from optimizer.evaluation.job import EvaluationSettings
from optimizer.evaluation.models import Side
from optimizer.evaluation.predict import forward_inputs
from optimizer.evaluation.tally import Figures

_MILLISECONDS = 1e3
_RESAMPLES = 2000
_CONFIDENCE = 0.95

Pass = Callable[[], None]


def one_pass(side: Side, settings: EvaluationSettings) -> Pass:
    """One forward pass of a batch of running text, whatever it leaves to do on a CUDA device included."""
    model = side.model
    inputs = forward_inputs(side.task, model, side.inputs.block(settings.batch_size, settings.length))

    def run() -> None:
        model(**inputs)
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)

    return run


@torch.inference_mode()
def measure(original: Pass, artifact: Pass, settings: EvaluationSettings) -> Figures:
    """The row's latencies in milliseconds, and the ratio of their medians with the interval that it lies in.

    The two take turns, and take turns in who goes first, so that a machine that slows down slows down both.
    """
    passes = original, artifact
    times: tuple[list[float], list[float]] = ([], [])
    for repetition in trange(
        settings.warmup + settings.repetitions, desc="latency", unit="run", leave=False, disable=None
    ):
        for turn in (0, 1) if repetition % 2 == 0 else (1, 0):
            start = time.perf_counter()
            passes[turn]()
            seconds = time.perf_counter() - start
            if repetition >= settings.warmup:
                times[turn].append(seconds * _MILLISECONDS)
    low, high = speedup_interval(*times)
    return {
        "latency_ms_p50": statistics.median(times[1]),
        "latency_ms_p95": float(np.percentile(times[1], 95)),
        "original_latency_ms_p50": statistics.median(times[0]),
        "speedup": statistics.median(times[0]) / statistics.median(times[1]),
        "speedup_low": low,
        "speedup_high": high,
    }


def speedup_interval(original: Sequence[float], artifact: Sequence[float]) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of the ratio of the medians, of times that were taken in pairs.

    Pairs are drawn, not times: what disturbs the machine disturbs both of a pair. A speedup is beyond the noise when
    1 lies outside. Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    pairs = np.array([original, artifact])
    drawn = np.random.default_rng(0).integers(pairs.shape[1], size=(_RESAMPLES, pairs.shape[1]))
    before, after = np.median(pairs[:, drawn], axis=2)
    low, high = np.quantile(before / after, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return float(low), float(high)
