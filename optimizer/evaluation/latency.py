"""How long a forward pass takes, and how many texts a second are answered, original and artifact side by side."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm, trange

from optimizer.evaluation.inputs import alike, batches
from optimizer.evaluation.job import EvaluationSettings, Grid
from optimizer.evaluation.models import Side
from optimizer.evaluation.predict import forward_inputs, logits_per_token, tune
from optimizer.evaluation.tally import Figures

_MILLISECONDS = 1e3
_RESAMPLES = 2000
_CONFIDENCE = 0.95
_NARROW = 0.1  # of the speedup: how wide its interval may be
_SECONDS_EACH = 1.0  # for each repetition asked for: how long an interval is narrowed
_MOST_PAIRS = 500

Pass = Callable[[], None]


@dataclass(frozen=True)
class Cell:
    """Batches of one size, `length` tokens long, for both models; no length where the models read no tokens."""

    batch_size: int
    length: int | None
    original: Pass
    artifact: Pass
    tune: Callable[[], str | None]


def cells(original: Side, artifact: Side, settings: EvaluationSettings) -> list[Cell]:
    """The batches of running text that both models are timed with: those of the grid, or the one of the settings.

    Lengths that a model cuts to the same are one.
    """
    grid = settings.grid or Grid(batch_sizes=[settings.batch_size], lengths=[settings.length])
    found: dict[tuple[int, int | None], Cell] = {}
    for batch_size in grid.batch_sizes:
        for length in grid.lengths:
            blocks = [side.inputs.block(batch_size, length) for side in (original, artifact)]
            tokens = blocks[0]["input_ids"].shape[-1] if "input_ids" in blocks[0] else None
            before, after = (_pass(side, block) for side, block in zip((original, artifact), blocks, strict=True))
            tuning = partial(tune, artifact.task, artifact.model, blocks[1])
            found.setdefault((batch_size, tokens), Cell(batch_size, tokens, before, after, tuning))
    return list(found.values())


def _pass(side: Side, inputs: Mapping[str, Tensor]) -> Pass:
    """One forward pass, whatever it leaves to do on a CUDA device included."""
    model = side.model
    complete = forward_inputs(side.task, model, dict(inputs))

    def run() -> None:
        model(**complete)
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)

    return run


def measure_cells(cells: Sequence[Cell], settings: EvaluationSettings) -> Figures:
    """The row's latencies, those of the first cell, and with a grid those of all as `latency_grid`."""
    measured = []
    for cell in cells:
        choice = cell.tune()  # after the answers were compared: their last bits may depend on it
        measured.append(measure(cell.original, cell.artifact, settings) | {"engine_choice": choice})
    figures: Figures = {**measured[0]}
    if settings.grid:
        sizes = ({"batch_size": cell.batch_size, "length": cell.length} for cell in cells)
        figures["latency_grid"] = [{**size, **found} for size, found in zip(sizes, measured, strict=True)]
    return figures


@torch.inference_mode()
def measure(original: Pass, artifact: Pass, settings: EvaluationSettings) -> dict[str, float | int | str | None]:
    """The row's latencies in milliseconds, and the ratio of their medians with the interval that it lies in.

    The two take turns, and take turns in who goes first, so that a machine that slows down slows down both. After the
    repetitions asked for they go on until the interval is narrow, but no longer than a second for each of these.
    """
    times: tuple[list[float], list[float]] = ([], [])

    def repeat(repetition: int) -> None:
        taken = _in_turns(original, artifact, repetition)
        if repetition >= settings.warmup:
            for side, seconds in zip(times, taken, strict=True):
                side.append(seconds * _MILLISECONDS)

    latest = time.perf_counter() + _SECONDS_EACH * settings.repetitions
    done = settings.warmup + settings.repetitions
    for repetition in trange(done, desc="latency", unit="run", leave=False, disable=None):
        repeat(repetition)
    low, high = speedup_interval(*times)
    while high - low > _NARROW * low and time.perf_counter() < latest and len(times[0]) < _MOST_PAIRS:
        for repetition in range(done, done + max(1, len(times[0]) // 2)):
            repeat(repetition)
            done += 1
            if time.perf_counter() >= latest:
                break
        low, high = speedup_interval(*times)
    return {
        "latency_ms_p50": statistics.median(times[1]),
        "latency_ms_p95": float(np.percentile(times[1], 95)),
        "original_latency_ms_p50": statistics.median(times[0]),
        "original_latency_ms_p95": float(np.percentile(times[0], 95)),
        "speedup": statistics.median(times[0]) / statistics.median(times[1]),
        "speedup_low": low,
        "speedup_high": high,
    }


@dataclass(frozen=True)
class Stream:
    """So many texts at their own lengths, sorted by them, batch by batch as both models are given them."""

    texts: int
    batches: list[tuple[Pass, Pass]]


def stream(original: Side, artifact: Side, settings: EvaluationSettings) -> Stream:
    """A seeded sample of `settings.stream` texts; fewer where there are not as many."""
    asked, own = original.inputs, artifact.inputs
    width = logits_per_token(original.task, original.model.config)
    examples = asked.examples(settings.stream)
    plan = list(batches(examples, settings.batch_size, asked.pad_id, width))
    own_plan = plan if own is asked else alike(plan, own.examples(settings.stream), own.pad_id)
    pairs = zip(plan, own_plan, strict=True)
    passes = [(_pass(original, batch.inputs), _pass(artifact, other.inputs)) for batch, other in pairs]
    return Stream(len(examples), passes)


@torch.inference_mode()
def measure_stream(stream: Stream) -> Figures:
    """How many texts of a stream each model answers a second, from tokens to logits, once it has seen them all.

    The two take turns batch by batch.
    """
    seconds = [0.0, 0.0]
    for is_timed in (False, True):
        for index, pair in enumerate(tqdm(stream.batches, desc="stream", unit="batch", leave=False, disable=None)):
            for side, taken in enumerate(_in_turns(*pair, index)):
                seconds[side] += taken if is_timed else 0
    return {"texts_per_second": stream.texts / seconds[1], "original_texts_per_second": stream.texts / seconds[0]}


def _in_turns(original: Pass, artifact: Pass, index: int) -> tuple[float, float]:
    """The seconds that each pass takes; which goes first is the other one's turn each time."""
    passes, seconds = (original, artifact), [0.0, 0.0]
    for turn in (0, 1) if index % 2 == 0 else (1, 0):
        start = time.perf_counter()
        passes[turn]()
        seconds[turn] = time.perf_counter() - start
    return seconds[0], seconds[1]


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
