"""The machine's lock: many compute at once, one measures alone, and nobody waits for ever."""

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from optimizer.errors import ProcessError
from optimizer.processes import machine, process


@pytest.fixture(autouse=True)
def own_lock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "_FOLDER", tmp_path)


class Worker:
    """A thread that takes the lock and holds it until it is told to let go."""

    def __init__(self, lock: Callable[[], AbstractContextManager[None]]) -> None:
        self.inside, self.let_go = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, args=(lock,), daemon=True)
        self._thread.start()

    def _work(self, lock: Callable[[], AbstractContextManager[None]]) -> None:
        with lock():
            self.inside.set()
            self.let_go.wait(60)

    def end(self) -> None:
        self.let_go.set()
        self._thread.join(60)

    def waits(self) -> bool:
        return not self.inside.wait(0.1)


def test_many_compute_at_once() -> None:
    workers = [Worker(machine.shared) for _ in range(3)]
    assert all(worker.inside.wait(60) for worker in workers)
    for worker in workers:
        worker.end()


def test_who_measures_is_alone_and_newcomers_wait_behind() -> None:
    computing = Worker(machine.shared)
    assert computing.inside.wait(60)
    measuring = Worker(machine.alone)
    assert measuring.waits()
    newcomer = Worker(machine.shared)
    assert newcomer.waits()
    computing.end()
    assert measuring.inside.wait(60)
    assert newcomer.waits()
    measuring.end()
    assert newcomer.inside.wait(60)
    newcomer.end()


def hold_and_die(folder: str) -> None:
    machine._FOLDER = Path(folder)
    with machine.alone():
        Path(folder, "held").touch()
        time.sleep(600)


def test_the_death_of_a_process_releases_it(tmp_path: Path) -> None:
    errors: list[ProcessError] = []

    def call() -> None:
        with pytest.raises(ProcessError) as caught:
            process.call(hold_and_die, str(tmp_path))
        errors.append(caught.value)

    caller = threading.Thread(target=call)
    caller.start()
    deadline = time.monotonic() + 60
    while not (tmp_path / "held").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.end_all()
    caller.join(60)
    assert "was killed by SIGKILL" in str(errors[0])
    with machine.shared():
        pass
