"""Read by every Python that finds this folder first: takes away what OPTIMIZER_TEST_WITHOUT names, as if not there."""

import builtins
import ctypes
import multiprocessing
import multiprocessing.context
import os
import pathlib
import signal
import sys


def _no_module(name: str) -> None:
    sys.modules[name] = None  # type: ignore[assignment]


def _no_proc() -> None:
    read, write = pathlib.Path.read_text, pathlib.Path.write_text

    def missing(path: pathlib.Path) -> None:
        if str(path).startswith(("/proc", "/sys")):
            raise FileNotFoundError(2, "No such file or directory", str(path))

    def read_text(self, *given, **named):
        missing(self)
        return read(self, *given, **named)

    def write_text(self, *given, **named):
        missing(self)
        return write(self, *given, **named)

    pathlib.Path.read_text, pathlib.Path.write_text = read_text, write_text


def _no_forkserver() -> None:
    multiprocessing.get_all_start_methods = lambda: ["spawn"]
    multiprocessing.get_context("spawn")
    del multiprocessing.context.ForkServerProcess


def _no_renameat2() -> None:
    made = ctypes.CDLL

    def library(name, *given, **named):
        if name is None:
            raise TypeError("expected a name")
        return made(name, *given, **named)

    ctypes.CDLL = library


_TAKEN = {
    "fcntl": lambda: _no_module("fcntl"),
    "resource": lambda: _no_module("resource"),
    "affinity": lambda: delattr(os, "sched_getaffinity"),
    "sigmask": lambda: delattr(signal, "pthread_sigmask"),
    "getuid": lambda: delattr(os, "getuid"),
    "link": lambda: delattr(os, "link"),
    "proc": _no_proc,
    "forkserver": _no_forkserver,
    "renameat2": _no_renameat2,
}

for _name in filter(None, os.environ.get("OPTIMIZER_TEST_WITHOUT", "").split(",")):
    _TAKEN[_name]()
    builtins.OPTIMIZER_TEST_TAKEN = (*getattr(builtins, "OPTIMIZER_TEST_TAKEN", ()), _name)
