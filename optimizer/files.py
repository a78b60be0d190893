"""Replace a file so that a reader, and a program that dies, finds the old one or the new one whole."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; what is there at the end of the block takes its place at once.

    Nothing of it is left, and what was at `path` stays, when the block raises. OSError as of the system.
    """
    # Not by the process: those of several machines that share the folder may have the same number.
    partial = path.with_name(f"{path.name}.{uuid4().hex}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
