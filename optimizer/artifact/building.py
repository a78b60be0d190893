"""Build a directory: complete under its name, or not there at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from optimizer.artifact.exchange import put_in_place, recover
from optimizer.errors import ArtifactError
from optimizer.manifest import read_manifest


@contextmanager
def building(place: Path, keep: Path | None = None, source: Path | None = None) -> Iterator[Path]:
    """An empty directory to fill; at the end of the block it is at `place`, and what was there at `keep`, or removed.

    When the block raises nothing of it is left. What a killed `building` left is put right first. Raises ArtifactError
    when the disk is full or cannot be written, or a file of `source`, from where it is filled, cannot be read.
    """
    partial = partial_name(place)
    try:
        shutil.rmtree(partial, ignore_errors=True)
        recover(place)
        partial.mkdir(parents=True)
        yield partial
        put_in_place(partial, place, keep)
    except OSError as error:
        raise ArtifactError(_what_failed(error, source, place)) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def partial_name(place: Path) -> Path:
    """Where a directory is built that will be at `place` when it is complete."""
    return place.with_name(f"{place.name}.partial")


def _what_failed(error: OSError, source: Path | None, place: Path) -> str:
    """One line that blames the file of the source that could not be read, or else the place."""
    reason = error.strerror or error
    # Of two names, that of a copy or a renaming, none says which of them it is about.
    if source is not None and isinstance(error.filename, str | os.PathLike) and error.filename2 is None:
        file = Path(error.filename)
        ours = file.is_relative_to(partial_name(place)) or place.is_relative_to(file)
        if file.is_relative_to(source) and not ours:
            return f"{file}: cannot be read ({reason})"
    return f"{place}: cannot be written ({reason})"


def check_free(place: Path) -> None:
    """Raise ArtifactError where a path holds anything but an artifact, which may be replaced, or an empty folder."""
    if not place.exists() or (place.is_dir() and not any(place.iterdir())):
        return
    try:
        read_manifest(place)
    except ArtifactError:
        raise ArtifactError(f"{place}: exists and is no artifact of this program; write another path") from None
