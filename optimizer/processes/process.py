"""Run one function in a fresh process of its own and wait for its answer."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from multiprocessing import connection
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from optimizer.errors import ProcessError, as_optimizer_error
from optimizer.processes.family import family, kill
from optimizer.processes.interrupt import without_sigint

if TYPE_CHECKING:  # Windows has but one of them
    from multiprocessing.context import ForkServerProcess, SpawnProcess

    Process = ForkServerProcess | SpawnProcess

T = TypeVar("T")

_PRELOADED = "optimizer.processes.preload"
_HAS_FORKSERVER = "forkserver" in multiprocessing.get_all_start_methods()
_SECONDS_TO_LEAVE = 5.0
_starting = threading.Lock()
_running: set[int] = set()


def call(function: Callable[..., T], *args: Any) -> T:
    """The result of a module-level `function` run in a fresh child process; arguments and result are pickled.

    The function's module is imported in the child, the program's main module is not: it may be a script without a
    guard, standard input or a notebook, but not the function's own.

    An OptimizerError raised in the child is raised here as itself, anything else as a ProcessError of one line;
    the child's traceback is a note of either. A child that dies without an answer is a ProcessError that says how.
    Whatever ends the wait early, Ctrl-C included, ends the child and its children too. Threads may call it.
    """
    warm_up()
    reader, writer = connection.Pipe(duplex=False)
    process = _new_process(_answer, (writer, function, args))
    try:
        with _starting, _without_main():
            process.start()
            assert process.pid is not None
            _running.add(process.pid)
        writer.close()
        result, error = _receive(reader, process)
        process.join(_SECONDS_TO_LEAVE)
    finally:
        _end(process)
        reader.close()
        writer.close()
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]


def end_all() -> None:
    """End every child that any thread of this process waits for, and their children."""
    kill(process for pid in list(_running) for process in family(pid))


def warm_up() -> None:
    """Start the server that children are forked from, if it is not there yet; its imports go on in the background.

    Does nothing where there is no fork server: children are then started from scratch.
    """
    # Threads that wait for each other by spinning are ten times slower as soon as anything else uses a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not _HAS_FORKSERVER:
        return
    from multiprocessing import forkserver, resource_tracker

    forkserver.set_forkserver_preload([_PRELOADED])
    resource_tracker.ensure_running()  # it unblocks SIGINT when it starts, so it must not start below
    with without_sigint():
        forkserver.ensure_running()  # inherits the mask: a Ctrl-C during its imports must not end it


def _new_process(target: Callable[..., None], args: tuple[Any, ...]) -> "Process":
    if _HAS_FORKSERVER:
        return multiprocessing.get_context("forkserver").Process(target=target, args=args)
    return multiprocessing.get_context("spawn").Process(target=target, args=args)


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Hide the program's main module: a child would run it again, guarded or not, and needs nothing of it."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _receive(reader: connection.Connection, process: "Process") -> tuple[Any, Exception | None]:
    connection.wait([reader, process.sentinel])
    with contextlib.suppress(EOFError, OSError):  # the child died before or while it answered
        if reader.poll():
            answer: tuple[Any, Exception | None] = reader.recv()
            return answer
    process.join()
    raise ProcessError(f"the run's process {_ending(process.exitcode)}")


def _ending(exitcode: int | None) -> str:
    if exitcode is None or exitcode >= 0:
        return f"ended without an answer (exit code {exitcode})"
    name = signal.Signals(-exitcode).name
    reason = "; the system may be out of memory" if name == "SIGKILL" else ""
    return f"was killed by {name}{reason}"


def _end(process: "Process") -> None:
    if process.pid is None:
        return
    if process.is_alive():
        kill(family(process.pid))
    process.join()
    _running.discard(process.pid)
    process.close()


def _answer(writer: connection.Connection, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """What the child does: send (result, None) or (None, error)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from tqdm import tqdm  # loaded already where children are forked

    # Its own lock is a semaphore shared by processes, which a child that is killed in a bar would leave behind.
    tqdm.set_lock(threading.RLock())
    try:
        writer.send((function(*args), None))
    except Exception as error:
        failure = as_optimizer_error(error)
        failure.add_note(traceback.format_exc())
        writer.send((None, failure))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    kill(family(os.getpid()))
