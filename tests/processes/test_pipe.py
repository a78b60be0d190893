"""Commands whose output is read by one that stops reading, such as head."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "optimizer.schema"],
        ["-m", "optimizer", "--help"],
        ["-m", "optimizer", "recipe=fp16", "evaluation=none", "plan=true"],
        ["-m", "optimizer.unpack", "--help"],
        [str(ROOT / "scripts" / "quantization_code.py"), "--help"],
    ],
    ids=lambda words: " ".join(words[-2:]),
)
def test_a_reader_that_has_gone_ends_a_command_in_silence(words: list[str], tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""}
    done = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, env=environment, stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr.decode()) == (141, "")
