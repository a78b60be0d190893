"""What the fork server imports once, so that every process forked from it has it at once; importing is all it does."""

import contextlib
import importlib
import logging
from pathlib import Path

import torch  # noqa: F401

_GPU_DRIVERS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
_MODULES = ("transformers.modeling_utils", "bitsandbytes", "optimizer.runs.run")

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it reports an optional kernel that it can do without
if not any(Path(driver).exists() for driver in _GPU_DRIVERS):
    # Where there is a GPU, these imports ask it what it can do, and no process forked after that could use it.
    for name in _MODULES:
        with contextlib.suppress(Exception):  # the child that needs it says what is wrong
            importlib.import_module(name)
