"""Child processes: results, errors, deaths, interruptions; and nothing left behind."""

import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest
from tqdm import tqdm

from optimizer.errors import DataError, ProcessError
from optimizer.processes import process

LONG = 600.0


def add(first: int, second: int) -> tuple[int, int]:
    return first + second, os.getpid()


def loaded() -> set[str]:
    return set(sys.modules)


def large(size: int) -> bytes:
    return bytes(size)


def refuse() -> None:
    raise DataError("file.txt:3: is wrong")


def divide() -> float:
    return 1 / int("0")


def fail_in_lines() -> None:
    raise RuntimeError("first line\nsecond line")


def fail_without_words() -> None:
    raise MemoryError


def unpicklable() -> object:
    return lambda: None


def die_by(number: int) -> None:
    os.kill(os.getpid(), number)


def leave(code: int) -> None:
    os._exit(code)


def die_in_a_bar() -> None:
    for _ in tqdm(range(2)):
        os.kill(os.getpid(), signal.SIGKILL)


def sleep_with_child(note: str) -> None:
    child = subprocess.Popen(["sleep", str(LONG)])
    Path(note).write_text(f"{os.getpid()} {child.pid}")
    time.sleep(LONG)


def survive_interrupt() -> str:
    os.kill(os.getpid(), signal.SIGINT)
    return "still here"


def error_of(function: object, *args: object) -> ProcessError:
    with pytest.raises(ProcessError) as caught:
        process.call(function, *args)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return caught.value


def test_returns_the_result_from_another_process() -> None:
    total, pid = process.call(add, 2, 3)
    assert total == 5
    assert pid != os.getpid()


def test_every_call_has_a_fresh_process() -> None:
    assert process.call(add, 0, 0)[1] != process.call(add, 0, 0)[1]


def test_a_result_may_be_larger_than_a_pipe_holds() -> None:
    assert process.call(large, 2**22) == bytes(2**22)


@pytest.mark.skipif(not process._HAS_FORKSERVER, reason="needs a fork server")
def test_the_second_start_takes_milliseconds_and_has_everything_loaded() -> None:
    from optimizer.processes import preload

    heavy = {"torch", "transformers.modeling_utils", "optimizer.evaluation.measure"}
    if any(Path(driver).exists() for driver in preload._GPU_DRIVERS):
        heavy = {"torch"}
    assert heavy <= process.call(loaded)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        process.call(add, 0, 0)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.5  # torch alone takes longer to import


def test_waiting_costs_no_time_of_the_processor() -> None:
    process.call(add, 0, 0)
    before = time.process_time()
    process.call(time.sleep, 1.0)
    assert time.process_time() - before < 0.5


def test_an_optimizer_error_comes_back_as_itself_with_the_childs_traceback() -> None:
    with pytest.raises(DataError) as caught:
        process.call(refuse)
    assert str(caught.value) == "file.txt:3: is wrong"
    assert "in refuse" in "".join(caught.value.__notes__)


def test_another_error_is_one_line_with_its_type_and_the_childs_traceback() -> None:
    error = error_of(divide)
    assert str(error) == "ZeroDivisionError: division by zero"
    assert "in divide" in "".join(error.__notes__)
    assert str(error_of(fail_in_lines)) == "RuntimeError: first line"
    assert str(error_of(fail_without_words)) == "MemoryError"


def test_a_result_that_cannot_be_sent_is_an_error() -> None:
    assert "pickle" in str(error_of(unpicklable))


def test_a_killed_child_says_by_what() -> None:
    assert "was killed by SIGKILL; the system may be out of memory" in str(error_of(die_by, signal.SIGKILL))
    assert str(error_of(die_by, signal.SIGTERM)).endswith("was killed by SIGTERM")


def test_a_child_that_leaves_without_an_answer_is_an_error() -> None:
    assert "exit code 3" in str(error_of(leave, 3))
    assert "exit code 0" in str(error_of(leave, 0))


def test_the_child_ignores_an_interrupt() -> None:
    assert process.call(survive_interrupt) == "still here"


def test_without_a_fork_server_the_child_is_spawned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_HAS_FORKSERVER", False)
    assert process.call(add, 2, 3)[0] == 5


SCRIPT = """
    import sys
    sys.path[:0] = {paths!r}
    from optimizer.processes import process
    from test_process import sleep_with_child

    process._PRELOADED = "json"
    process.call(sleep_with_child, {note!r})
"""


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGKILL, -signal.SIGKILL)])
def test_an_interrupted_or_killed_parent_leaves_no_process_behind(
    number: signal.Signals, exit_code: int, tmp_path: Path
) -> None:
    note = tmp_path / "pids"
    script = tmp_path / "script.py"
    here = Path(__file__).parent
    script.write_text(textwrap.dedent(SCRIPT).format(paths=[str(here), str(here.parent)], note=str(note)))
    parent = subprocess.Popen([sys.executable, script], stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        wait_until(lambda: note.exists() and len(note.read_text().split()) == 2)
        if number == signal.SIGINT:
            os.killpg(parent.pid, number)  # as a terminal does
        else:
            parent.send_signal(number)
        _, errors = parent.communicate(timeout=30)
    finally:
        parent.kill()
    assert parent.returncode == exit_code
    assert errors.count("Traceback") == (number == signal.SIGINT)
    for pid in map(int, note.read_text().split()):
        wait_until(lambda pid=pid: not is_running(pid))


def test_a_child_killed_in_a_bar_leaves_nothing_to_warn_of() -> None:
    here = Path(__file__).parent
    code = """
        import contextlib
        from optimizer import errors
        from optimizer.processes import process
        from test_process import die_in_a_bar

        process._PRELOADED = "json"
        with contextlib.suppress(errors.ProcessError):
            process.call(die_in_a_bar)
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(here), str(here.parent)])}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert "0%" in done.stderr
    assert "leaked" not in done.stderr


@pytest.mark.parametrize("arguments", [["script.py"], ["-"], ["-c", "{code}"], ["-m", "script"]], ids=lambda a: a[0])
def test_any_main_module_will_do(arguments: list[str], tmp_path: Path) -> None:
    code = "from optimizer.processes import process; process._PRELOADED = 'json'; print(process.call(len, 'four'))"
    (tmp_path / "script.py").write_text(code)
    done = subprocess.run(
        [sys.executable, *(argument.format(code=code) for argument in arguments)],
        input=code,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        check=False,
    )
    assert (done.stdout, done.stderr) == ("4\n", "")


def test_a_function_of_the_main_module_is_refused_before_a_child_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def of_main() -> None:
        pass

    of_main.__module__, of_main.__qualname__ = "__main__", "of_main"
    monkeypatch.setattr(sys.modules["__main__"], "of_main", of_main, raising=False)
    with pytest.raises(pickle.PicklingError, match="of_main"):
        process.call(of_main)


def wait_until(condition: object) -> None:
    deadline = time.monotonic() + 60
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
