"""What the fork server must not load."""

import subprocess
import sys

CODE = """
import sys
from pathlib import Path

exists = Path.exists
Path.exists = lambda path: str(path).startswith("/dev/") or exists(path)
import optimizer.processes.preload

print(*(name in sys.modules for name in ("torch", "transformers", "bitsandbytes")))
"""


def test_where_there_is_a_gpu_nothing_is_loaded_that_talks_to_it() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("True False False\n", "")
