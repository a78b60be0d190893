"""How much memory and time a process needs that loads and runs the artifact, and nothing else."""

import contextlib
import gc
import re
import sys
import time
from pathlib import Path

import psutil
import torch

from optimizer.evaluation.job import Job
from optimizer.evaluation.models import set_up, sides
from optimizer.evaluation.predict import forward_inputs, tune
from optimizer.evaluation.tally import Figures
from optimizer.processes import machine

_BYTES_PER_MB = 1e6
_BYTES_PER_KIB = 1024
_MILLISECONDS = 1e3
_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


def measure(job: Job) -> Figures:
    """The row's `peak_memory_mb` and `load_ms`, of loading the artifact and running one batch.

    The first is the most memory, in MB, above what was in use before: resident memory of this process on a CPU, an
    engine's choice of how to run the batch included; memory of the device, as torch allocates it, on a GPU. The second
    is the time until the answer is there. To be called in a process of its own.
    """
    set_up(job.environment)
    with machine.shared():
        _, artifact = sides(job, job.read_texts())
        block = artifact.inputs.block(job.settings.batch_size, job.settings.length)
    device = torch.device(job.environment.device)
    torch.ones(1, device=device)  # CUDA's own memory belongs to the idle process
    gc.collect()
    with machine.alone(), torch.inference_mode():
        idle = _reset_peak(device)
        start = time.perf_counter()
        artifact.model(**forward_inputs(job.task, artifact.model, block))
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - start
        tune(job.task, artifact.model, block)
        peak = _peak(device)
    return {"peak_memory_mb": (peak - idle) / _BYTES_PER_MB, "load_ms": seconds * _MILLISECONDS}


def _reset_peak(device: torch.device) -> int:
    """Bytes in use now; from here on `_peak` counts afresh where the system can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with contextlib.suppress(OSError):  # the peak so far then stands for the idle process
            _CLEAR.write_text(_RESET_PEAK)
    return _peak(device)


def _peak(device: torch.device) -> int:
    """The most bytes in use so far, of the device or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError):
        if found := re.search(r"^VmHWM:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE):
            return int(found[1]) * _BYTES_PER_KIB
    try:
        import resource
    except ImportError:  # Windows, which calls it the peak of the working set
        known = psutil.Process().memory_info()
        return int(getattr(known, "peak_wset", known.rss))
    most: int = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * _BYTES_PER_KIB
