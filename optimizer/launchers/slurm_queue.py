"""What SLURM says of jobs, by squeue and scancel: the accounting behind sacct is often not there, or late."""

import contextlib
import subprocess
import time

from optimizer.errors import ProcessError

# https://slurm.schedmd.com/squeue.html, "job state codes": those that a job does not leave by itself
_ENDED = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED",
    "REQUEUE_HOLD", "REVOKED", "SPECIAL_EXIT", "TIMEOUT",
}  # fmt: skip
_UNKNOWN = "Invalid job id"  # what squeue says a few minutes after a job's end
_HELD = "launch failed"  # a reason for which a job stays pending until an administrator comes

_SECONDS_TO_ANSWER = 60
_SECONDS_BETWEEN_LOOKS = 0.2
_SECONDS_TO_END = 90.0  # above SLURM's default KillWait of 30, after which it kills what ignores SIGTERM


class SlurmError(ProcessError):
    """SLURM does not answer now; it may later."""


def ended(jobs: set[str]) -> dict[str, str]:
    """How those of `jobs` that have ended did so: a state, or what else there is to say.

    All are elements of one array, `12_3`, or it is a single job, `12`. Raises SlurmError when SLURM does not answer.
    """
    parent = next(iter(jobs)).partition("_")[0]
    states = _states(parent)
    found = {}
    for job in jobs:
        # elements that were cancelled before they began are one line, under the array's own number
        state = states.get(job) or states.get(parent)
        if state is None:
            found[job] = "is gone: SLURM does not know it any more"
        elif state in _ENDED:
            found[job] = f"ended as {state}"
        elif _HELD in state:
            found[job] = f"cannot begin: {state}"
    return found


def cancel(jobs: set[str]) -> None:
    """End what is left of an array, all of `jobs`, and wait for it; SlurmError when that cannot be seen in time."""
    parent = next(iter(jobs)).partition("_")[0]
    # It complains when all are over already; what counts is what becomes of them.
    with contextlib.suppress(SlurmError):
        _run("scancel", "--quiet", parent)
    deadline = time.monotonic() + _SECONDS_TO_END
    while left := jobs - ended(jobs).keys():
        if time.monotonic() > deadline:
            raise SlurmError(f"{len(left)} of them do not end")
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _states(parent: str) -> dict[str, str]:
    found = _run("squeue", "--noheader", "--array", "--states=all", f"--jobs={parent}", "--format=%i|%T|%r")
    states = {}
    for line in found.splitlines():
        job, state, reason = line.split("|", 2)
        states[job] = reason.replace("_", " ") if _HELD in reason.replace("_", " ") else state
    return states


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS_TO_ANSWER, check=False)
    except subprocess.TimeoutExpired:
        raise SlurmError(f"{command[0]} does not answer") from None
    if done.returncode and _UNKNOWN not in done.stderr:
        raise SlurmError((done.stderr.strip().splitlines() or [f"{command[0]} failed"])[0])
    return done.stdout
