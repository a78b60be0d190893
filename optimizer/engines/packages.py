"""NNCF, and OpenVINO beneath it, as quiet guests: no telemetry, no files in the home, no progress bars, no warnings."""

import importlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import cache
from typing import Any

_TELEMETRY = "openvino_telemetry"


@cache
def openvino() -> Any:
    """The package `openvino`."""
    with _without_telemetry():
        return importlib.import_module("openvino")


@cache
def core() -> Any:
    """OpenVINO's `Core`, one for as long as the process lives.

    Each sets up the stack that signals are handled on, and takes it down when it goes: of two that go in the order in
    which they came, the second leaves the first's, which is freed by then, and the next Ctrl-C ends in a segfault.
    """
    return openvino().Core()


@cache
def nncf() -> Any:
    """The package `nncf`."""
    loggers = logging.getLoggerClass()
    with _without_telemetry(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it imports
        package = importlib.import_module("nncf")
    logging.setLoggerClass(loggers)  # it makes every later logger one of its own kind
    # Its own function would set the level of handlers too, those of others among them that listen to it.
    logging.getLogger("nncf").setLevel(logging.ERROR)
    return package


@contextmanager
def quiet() -> Iterator[None]:
    """An engine's tools at work without progress bars on the standard output, advice in the log and warnings.

    The root logger is put back as it was: where OpenVINO cannot convert, it leaves a level, a filter and a handler.
    """
    root = logging.getLogger()
    level, filters, handlers = root.level, list(root.filters), list(root.handlers)
    root.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
        root.filters, root.handlers = filters, handlers


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """Packages that are imported here find none, for which they have a substitute that does nothing."""
    before = sys.modules.get(_TELEMETRY)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[_TELEMETRY]
        if before is not None:
            sys.modules[_TELEMETRY] = before
