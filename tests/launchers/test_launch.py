"""Every launcher gives what `basic` gives, survives what a run can do to it, and leaves nothing behind."""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import items
import psutil
import pytest

from optimizer.errors import OptimizerError, ProcessError, StageError
from optimizer.launchers import parse

_SECONDS_TO_START = 60.0
_SECONDS_TO_END = 60.0
_SECONDS_TO_LEAVE = 10.0
_MIXED: list[dict[str, Any]] = [
    {"do": "square", "value": 2},
    {"do": "raise"},
    {"do": "divide", "value": 0},
    {"do": "square", "value": 0},
]
_PROGRAM = """
import contextlib, signal, sys
from pathlib import Path
import items
from optimizer.launchers import parse
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started the tests without it
kind, folder, *_ = sys.argv[1:]
sleepers = [{"do": "sleep", "folder": folder}] * 4
with contextlib.closing(parse({"launcher": kind}).launch(items.act, sleepers, Path(folder, "own"))) as outcomes:
    print(list(outcomes))
"""


def outcomes(kind: str, work: list[dict[str, Any]], folder: Path, **settings: Any) -> dict[int, Any]:
    found = list(parse({"launcher": kind, **settings}).launch(items.act, work, folder))
    assert len(found) == len(dict(found)) == len(work)
    return dict(found)


def text(outcome: Any) -> Any:
    return (type(outcome), str(outcome)) if isinstance(outcome, OptimizerError) else outcome


def check_mixed(found: dict[int, Any]) -> None:
    assert found[0] == {"square": 4, "text": "éé", "none": None}
    assert isinstance(found[1], StageError)
    assert text(found[2]) == (ProcessError, "ZeroDivisionError: integer division or modulo by zero")
    assert "in act" in found[2].__notes__[0]
    assert found[3]["square"] == 0
    for outcome in found.values():
        assert text(pickle.loads(pickle.dumps(outcome))) == text(outcome)


def sleeping(folder: Path, count: int) -> list[psutil.Process]:
    """The processes of `count` items that have begun to sleep."""
    deadline = time.monotonic() + _SECONDS_TO_START
    while len(files := [path for path in folder.iterdir() if path.name.isdigit()]) < count:
        assert time.monotonic() < deadline, "the items do not begin"
        time.sleep(0.05)
    return [psutil.Process(int(pid)) for path in files for pid in path.read_text().split()]


def alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def soon(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _SECONDS_TO_LEAVE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def queued() -> str:
    return subprocess.run(["squeue", "--noheader"], capture_output=True, text=True, check=True).stdout


def test_basic_works_in_order_and_on_demand(tmp_path: Path) -> None:
    found = parse(None).launch(items.act, _MIXED, tmp_path)
    assert next(iter(found))[0] == 0
    assert [index for index, _ in found] == [1, 2, 3]
    check_mixed(outcomes("basic", _MIXED, tmp_path))
    assert list(parse(None).launch(items.act, [], tmp_path)) == []


@pytest.mark.parametrize("n_jobs", [1, 3])
def test_joblib_gives_the_same(tmp_path: Path, n_jobs: int) -> None:
    check_mixed(outcomes("joblib", _MIXED, tmp_path, n_jobs=n_jobs))
    assert outcomes("joblib", [], tmp_path) == {}


def test_joblib_closed_early_leaves_no_thread_at_work(tmp_path: Path) -> None:
    done: list[int] = []

    def slow(item: int) -> None:
        time.sleep(0.1)
        done.append(item)

    found = parse({"launcher": "joblib", "n_jobs": 2}).launch(slow, range(20), tmp_path)
    next(found)
    found.close()
    count = len(done)
    assert count < 6
    time.sleep(0.3)
    assert len(done) == count


@pytest.mark.slow
def test_the_same_as_basic_whatever_happens_to_some(kind: str, tmp_path: Path) -> None:
    threads = set(threading.enumerate())
    deadly = {"do": "kill-child" if kind == "joblib" else "kill"}
    found = outcomes(kind, [*_MIXED, {"do": "process", "value": 7}, deadly, {"do": "square", "value": 5}], tmp_path)
    check_mixed(found)
    assert found[4] == 49
    assert isinstance(found[5], ProcessError)
    how = {"joblib": "SIGKILL", "submitit_local": "was killed", "submitit_slurm": "FAILED", "ray": "WorkerCrashed"}
    assert how[kind] in str(found[5])
    assert "\n" not in str(found[5])
    assert found[6]["square"] == 25
    soon(lambda: set(threading.enumerate()) <= threads)  # idle threads of a pool end a moment later
    assert outcomes(kind, [], tmp_path) == {}
    assert text(outcomes(kind, [{"do": "raise"}], tmp_path)[0]) == text(found[1])  # one item: no SLURM array


@pytest.mark.slow
def test_closed_early_it_ends_what_runs(kind: str, tmp_path: Path) -> None:
    work: list[dict[str, Any]] = [{"do": "square", "value": 1}, *[{"do": "sleep", "folder": str(tmp_path)}] * 4]
    found = parse({"launcher": kind}).launch(items.act, work, tmp_path / "own")
    assert next(found) == (0, {"square": 1, "text": "é", "none": None})
    processes = sleeping(tmp_path, 1)
    found.close()
    assert not [process for process in processes if alive(process)]
    if kind == "submitit_slurm":
        assert queued() == ""


@pytest.mark.slow
def test_ctrl_c_leaves_nothing(kind: str, tmp_path: Path) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, kind, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        processes = sleeping(tmp_path, 2)
        started = psutil.Process(program.pid).children(recursive=True)
        os.killpg(program.pid, signal.SIGINT)  # a terminal sends it to the whole group
        out, err = program.communicate(timeout=_SECONDS_TO_END)
    finally:
        program.kill()
        program.communicate()
    assert program.returncode == -signal.SIGINT
    assert out == ""
    assert err.splitlines()[-1] == "KeyboardInterrupt"
    assert err.count("Traceback") == 1
    assert "Warning" not in err
    assert not [process for process in processes if alive(process)]
    soon(lambda: not any(map(alive, started)))  # multiprocessing's own helpers end a moment after the program
    if kind == "submitit_slurm":
        assert queued() == ""
