"""A process and all that it has started, and their end."""

import contextlib
import time
from collections.abc import Iterable

import psutil

_SECONDS_BETWEEN_LOOKS = 0.05
_SECONDS_TO_DIE = 10.0  # one that waits for a device or a network file system cannot be killed


def family(pid: int | None = None) -> list[psutil.Process]:
    """All below the process `pid` and then itself; without `pid`, all below this process."""
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        return [*root.children(recursive=True), *([] if pid is None else [root])]
    return []


def wait(processes: Iterable[psutil.Process], seconds: float) -> None:
    """Wait until processes have ended, no longer than `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(map(_runs, processes)):
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def kill(processes: Iterable[psutil.Process]) -> None:
    """Kill processes in the order given, this one too if it is among them, and wait until they have gone."""
    processes = list(processes)
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    wait(processes, _SECONDS_TO_DIE)


def _runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False
