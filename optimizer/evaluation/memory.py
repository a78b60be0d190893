"""How much memory a process needs that loads and runs the artifact, and nothing else."""

import contextlib
import gc
import re
import resource
from pathlib import Path

import torch

from optimizer.evaluation.inputs import prepare
from optimizer.evaluation.job import Job
from optimizer.evaluation.models import load_on, on_meta, set_up
from optimizer.evaluation.predict import forward_inputs
from optimizer.processes import machine

_BYTES_PER_MB = 1e6
_BYTES_PER_KIB = 1024
_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


def peak_mb(job: Job) -> float:
    """Peak resident memory of this process, in MB above what it was before it loaded the artifact and ran one batch.

    To be called in a process of its own.
    """
    set_up(job.environment)
    with machine.shared():
        return _peak_mb(job)


def _peak_mb(job: Job) -> float:
    inputs = prepare(on_meta(job.original, job.task), job.original, job.texts, job.environment.seed)
    block = inputs.block(job.settings.batch_size, job.settings.length)
    torch.ones(1, device=job.environment.device)  # CUDA's own memory belongs to the idle process
    gc.collect()
    idle = _reset_peak()
    model = load_on(job.artifact, job.task, job.environment, inputs.pad_id)
    with torch.inference_mode():
        model(**forward_inputs(job.task, model, block))
    return (_peak() - idle) / _BYTES_PER_MB


def _reset_peak() -> int:
    """Resident bytes now; from here on `_peak` counts afresh where the system can."""
    with contextlib.suppress(OSError):  # the peak so far then stands for the idle process
        _CLEAR.write_text(_RESET_PEAK)
    return _peak()


def _peak() -> int:
    """The most resident bytes of this process so far."""
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    except OSError:
        found = None
    kib = int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kib * _BYTES_PER_KIB
