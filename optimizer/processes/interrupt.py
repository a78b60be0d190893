"""A Ctrl-C that cannot be lost: C extensions drop a KeyboardInterrupt, or turn it into another error."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_arrived = False


def listen() -> None:
    """From here on remember a SIGINT, and raise KeyboardInterrupt where it arrives as Python does by itself."""
    global _arrived  # noqa: PLW0603 - a signal is a matter of the whole process
    _arrived = False
    signal.signal(signal.SIGINT, _on_signal)


@contextmanager
def listening() -> Iterator[None]:
    """Listen for a while, in a program that is not ours; only a main thread can, in another nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    listen()
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def check() -> None:
    """Raise KeyboardInterrupt if a SIGINT has arrived, whatever became of its own."""
    if _arrived:
        raise KeyboardInterrupt


@contextmanager
def without_sigint() -> Iterator[None]:
    """Keep a SIGINT from this thread until the end; processes started meanwhile keep it out too. Nothing on Windows."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _on_signal(number: int, frame: FrameType | None) -> None:
    global _arrived  # noqa: PLW0603
    _arrived = True
    raise KeyboardInterrupt
