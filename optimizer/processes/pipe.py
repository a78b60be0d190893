"""Output that nobody reads any more: `command | head` ends without a traceback, like any other command."""

import os
import sys
from collections.abc import Callable

_SIGPIPE = 128 + 13
"""The exit code by which a shell tells that a command's reader has gone."""


def until_closed(command: Callable[[], int]) -> int:
    """The exit code of a command that prints; 141 where what reads its output has stopped reading it."""
    try:
        try:
            return command()
        finally:  # here rather than when Python ends, where nobody could catch it
            sys.stdout.flush()
    except BrokenPipeError:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())  # what is left in the buffer
        os.close(nothing)
        return _SIGPIPE
