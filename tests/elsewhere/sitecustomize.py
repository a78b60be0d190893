"""Read by every Python that finds this folder first: takes from our own code what OPTIMIZER_TEST_WITHOUT names.

From ours alone: other packages know by sys.platform that they are on Linux, and do there what they do there.
"""

import builtins
import ctypes
import importlib
import multiprocessing
import os
import pathlib
import signal
import sys
import types

_GONE: set[str] = set()
_STANDING_IN: dict[str, types.ModuleType] = {}


class _StandIn(types.ModuleType):
    """A module without some of its names, and with others in place of some."""

    def __init__(self, module: types.ModuleType, *gone: str, **changed: object) -> None:
        super().__init__(module.__name__)
        self.__dict__.update({"_module": module, "_gone": set(gone), **changed})

    def __getattr__(self, name: str) -> object:
        if name in self._gone:
            raise AttributeError(f"module '{self.__name__}' has no attribute '{name}'")
        return getattr(self._module, name)


def _no_names(module: types.ModuleType, *gone: str, **changed: object) -> None:
    before = _STANDING_IN.get(module.__name__, module)
    _STANDING_IN[module.__name__] = _StandIn(before, *gone, **changed)


def _no_library(name, *given, **named):
    if name is None:
        raise TypeError("expected a name")
    return ctypes.CDLL(name, *given, **named)


def _no_proc() -> None:
    read, write = pathlib.Path.read_text, pathlib.Path.write_text

    def present(path: pathlib.Path) -> pathlib.Path:
        if str(path).startswith(("/proc", "/sys")):
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return path

    pathlib.Path.read_text = lambda path, *given, **named: read(present(path), *given, **named)
    pathlib.Path.write_text = lambda path, *given, **named: write(present(path), *given, **named)


_TAKEN = {
    "fcntl": lambda: _GONE.add("fcntl"),
    "resource": lambda: _GONE.add("resource"),
    "affinity": lambda: _no_names(os, "sched_getaffinity"),
    "sigmask": lambda: _no_names(signal, "pthread_sigmask"),
    "getuid": lambda: _no_names(os, "getuid"),
    "link": lambda: _no_names(os, "link"),
    "proc": _no_proc,
    "forkserver": lambda: _no_names(multiprocessing, get_all_start_methods=lambda: ["spawn"]),
    "renameat2": lambda: _no_names(ctypes, CDLL=_no_library),
}


def _for_ours(wanted: str, importer: str) -> types.ModuleType | None:
    """What our code gets for a module, None if that is the module itself."""
    if importer.partition(".")[0] != "optimizer":
        return None
    if wanted in _GONE:
        raise ModuleNotFoundError(f"No module named '{wanted}'", name=wanted)
    return _STANDING_IN.get(wanted)


_import, _by_name = builtins.__import__, importlib.import_module


def _importing(wanted, globals=None, locals=None, fromlist=(), level=0):
    instead = _for_ours(wanted, (globals or {}).get("__name__") or "") if level == 0 else None
    found = _import(wanted, globals, locals, fromlist, level)  # submodules, too
    return found if instead is None else instead


def _importing_by_name(wanted, package=None):
    instead = _for_ours(wanted, sys._getframe(1).f_globals.get("__name__") or "")
    return _by_name(wanted, package) if instead is None else instead


for _name in filter(None, os.environ.get("OPTIMIZER_TEST_WITHOUT", "").split(",")):
    _TAKEN[_name]()
    builtins.OPTIMIZER_TEST_TAKEN = (*getattr(builtins, "OPTIMIZER_TEST_TAKEN", ()), _name)
builtins.__import__, importlib.import_module = _importing, _importing_by_name
