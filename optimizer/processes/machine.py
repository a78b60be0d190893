"""Who may use this machine: many runs at once, and nobody else while a latency is measured.

Runs that share a machine's cores would report each other's load as their own latency, so every part of a run that
computes holds the lock together with others, and the part that measures time holds it alone. Windows has no such locks:
there runs that share a machine do disturb each other.
"""

import getpass
import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

fcntl: Any = None
with suppress(ImportError):
    fcntl = importlib.import_module("fcntl")

# Not the folder that TMPDIR names: a batch system gives each job one of its own.
_FOLDER = Path("/tmp")


@contextmanager
def shared() -> Iterator[None]:
    """Compute, at the same time as other runs of this user on this machine, but not while one measures time."""
    with _held("LOCK_SH"):
        yield


@contextmanager
def alone() -> Iterator[None]:
    """Wait until no run of this user computes on this machine, and let none begin before this ends."""
    with _held("LOCK_EX"):
        yield


@contextmanager
def _held(kind: str) -> Iterator[None]:
    if fcntl is None:
        yield
        return
    # Everybody passes the gate first, so that one who waits there to be alone is not overtaken by newcomers for ever.
    with _open("gate") as gate, _open("machine") as machine:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(machine, getattr(fcntl, kind))
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield  # closing the file, or the death of the process, releases it


@contextmanager
def _open(name: str) -> Iterator[int]:
    user = os.getuid() if hasattr(os, "getuid") else getpass.getuser()
    path = _FOLDER / f"optimizer-{user}.{name}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
