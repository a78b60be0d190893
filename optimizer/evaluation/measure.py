"""Measure a job: what the parent calls, and what runs in the processes that it starts."""

import time

from optimizer.evaluation import comparison, invariance, latency, memory
from optimizer.evaluation.job import Job
from optimizer.evaluation.models import set_up, sides
from optimizer.evaluation.tally import Figures
from optimizer.processes import machine, process
from optimizer.rows.row import columns

__all__ = ["FIGURES", "Job", "evaluate"]

FIGURES = (*columns("quality", "data", "latency", "grid", "memory"), "evaluate_seconds")
"""The row's columns that `evaluate` fills."""


def evaluate(job: Job) -> Figures:
    """A value for each of FIGURES, None for what this job does not measure.

    Measures in child processes; starts none when nothing is to be measured. Raises EvaluationError when a figure
    cannot be had, DataError for labels that the model does not know, ProcessError when a process dies.
    """
    started = time.perf_counter()
    figures: Figures = dict.fromkeys(FIGURES)
    if job.settings.examples != 0 or job.settings.repetitions:
        figures |= process.call(_compare_and_time, job)
    if job.settings.repetitions:
        figures |= process.call(memory.measure, job)
    figures["evaluate_seconds"] = time.perf_counter() - started
    return figures


def _compare_and_time(job: Job) -> Figures:
    """What one process with both models in it measures."""
    set_up(job.environment)
    figures: Figures = {}
    with machine.shared():
        texts = job.read_texts()
        original, artifact = sides(job, texts)
        if job.settings.examples != 0:
            figures |= comparison.compare(job, texts, original, artifact)
            figures |= invariance.measure(job, artifact)
        if job.settings.repetitions:
            cells = latency.cells(original, artifact, job.settings)
            stream = latency.stream(original, artifact, job.settings) if job.settings.stream else None
    if job.settings.repetitions:
        with machine.alone():
            figures |= latency.measure_cells(cells, job.settings)
            if stream:
                figures |= latency.measure_stream(stream)
    return figures
