"""A Ray that runs already, and one that does not."""

import contextlib
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_launch import outcomes, soon

from optimizer.errors import RecipeError
from optimizer.processes import family

pytest.importorskip("ray")

_PROGRAM = """
import sys
import items
from optimizer.errors import RecipeError
from optimizer.launchers import parse
address, folder = sys.argv[1:]
settings = {"launcher": "ray", "address": address}
work = [{"do": "square", "value": 2}, {"do": "kill"}, {"do": "process", "value": 3}]
for _, outcome in sorted(parse(settings).launch(items.act, work, folder)):
    print(outcome)
try:
    list(parse(settings | {"num_cpus": 2}).launch(items.act, work, folder))
except RecipeError as error:
    print(error)
"""


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """The address of a Ray with one core, and its process."""
    # Ray lets nobody in without a token, by default the one in the user's home.
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    scratch = tempfile.mkdtemp(prefix="ray-")  # its sockets allow no long path
    options = ["--head", "--block", "--num-cpus=1", f"--port={port}", "--node-ip-address=127.0.0.1"]
    options += ["--include-dashboard=false", "--disable-usage-stats", f"--temp-dir={scratch}"]
    with Path(scratch, "said").open("w") as said:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *options]
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
    try:
        soon(lambda: listens(port))
        yield f"127.0.0.1:{port}", process
    finally:
        family.kill(family.family(process.pid))
        process.wait()
        shutil.rmtree(scratch)


def listens(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port)).close()
        return True
    return False


@pytest.mark.slow
def test_a_ray_that_runs_is_used_and_left_running(head: tuple[str, "subprocess.Popen[bytes]"], tmp_path: Path) -> None:
    address, process = head
    # In a process of its own: Ray remembers who may enter.
    command = [sys.executable, "-c", _PROGRAM, address, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    square, killed, nine, refused = done.stdout.splitlines()
    assert square == str({"square": 4, "text": "éé", "none": None})
    assert "WorkerCrashedError" in killed
    assert nine == "9"
    assert refused == "hydra.launcher: no node of this Ray has num_cpus=2 and num_gpus=0; write less"
    assert process.poll() is None


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:x"])
def test_where_no_ray_is_nobody_waits(address: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=rf"^hydra\.launcher\.address: '{address}': no Ray there: "):
        outcomes("ray", [{"do": "square", "value": 1}], tmp_path, address=address)
