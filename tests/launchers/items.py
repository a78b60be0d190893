"""What the tests launch: functions of a module that workers can import."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from optimizer.errors import StageError
from optimizer.processes import process

FOREVER = 3600


def act(item: dict[str, Any]) -> Any:
    """Do what `item` says."""
    match item["do"]:
        case "square":
            return {"square": item["value"] ** 2, "text": "é" * item["value"], "none": None}
        case "process":
            return process.call(pow, item["value"], 2)
        case "raise":
            raise StageError("stages.prune: this one\nis impossible")
        case "divide":
            return 1 // item["value"]
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "kill-child":
            return process.call(kill_self)
        case "sleep":
            return sleep(item)
        case "exit":
            sys.exit(3)
    raise AssertionError(item)


def kill_self() -> None:
    """What a process killed for its memory looks like."""
    os.kill(os.getpid(), signal.SIGKILL)


def sleep(item: dict[str, Any]) -> None:
    """Say in the item's folder which processes there are, then sleep in a child of a child process."""
    process.call(sleep_in_child, item["folder"])


def sleep_in_child(folder: str) -> None:
    """As a run does that starts a program."""
    program = subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({FOREVER})"])
    path = Path(folder) / f"{os.getpid()}"
    path.with_suffix(".tmp").write_text(f"{os.getpid()} {program.pid}")
    path.with_suffix(".tmp").rename(path)
    program.wait()
    time.sleep(FOREVER)
