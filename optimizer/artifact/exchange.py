"""Put a finished artifact in the place of another directory so that nothing is ever lost, whenever the program dies."""

import ctypes
import errno
import os
import shutil
from pathlib import Path

from optimizer.errors import ArtifactError
from optimizer.manifest import Manifest, read_manifest
from optimizer.model.directory import fingerprint

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2  # linux/fs.h
_UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)


def put_in_place(new: Path, place: Path, keep: Path | None = None) -> None:
    """Move the finished directory `new` to `place`; what was there goes to `keep`, or is removed if that is None.

    Both exchange their names in one step where the system can (renameat2), else by two renames. Killed in between,
    `recover(place)` puts things right.
    """
    if not place.exists():
        new.rename(place)
        return
    waiting = _waiting(place)
    old = keep or _replaced(place)
    new.rename(waiting)
    if _exchange(waiting, place):
        waiting.rename(old)
    else:
        place.rename(old)
        waiting.rename(place)
    if keep is None:
        shutil.rmtree(old)


def recover(place: Path) -> str | None:
    """Finish or undo a `put_in_place` that was killed; a line that says what was done, None if there was nothing.

    Raises ArtifactError rather than touch a directory that it cannot tell the origin of.
    """
    waiting, replaced = _waiting(place), _replaced(place)
    shutil.rmtree(replaced, ignore_errors=True)
    if not waiting.exists():
        return None
    if not place.exists():
        waiting.rename(place)
        return f"{place}: put in place the artifact that an interrupted run had finished"
    inside, outside = _manifest(waiting), _manifest(place)
    if outside and outside.original_fingerprint == fingerprint(waiting):
        kept = kept_name(place)
        waiting.rename(kept)
        return f"{kept}: is the original that an interrupted run had replaced"
    if inside is None:
        raise ArtifactError(f"{waiting}: was left by an interrupted run and is no artifact; move it away first")
    waiting.rename(replaced)  # killed while removing it, the next call must still know it
    shutil.rmtree(replaced)
    return f"{waiting}: removed what an interrupted run had left"


def kept_name(place: Path) -> Path:
    """A free name beside `place` under which what it holds can be kept."""
    number = 1
    kept = place.with_name(f"{place.name}.original")
    while kept.exists():
        number += 1
        kept = place.with_name(f"{place.name}.original-{number}")
    return kept


def _waiting(place: Path) -> Path:
    return place.with_name(place.name + ".replacing")


def _replaced(place: Path) -> Path:
    return place.with_name(place.name + ".replaced")


def _manifest(directory: Path) -> Manifest | None:
    try:
        return read_manifest(directory)
    except ArtifactError:
        return None


def _exchange(first: Path, second: Path) -> bool:
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):  # no such call; no library of the program's own on Windows
        return False
    if renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), str(first), None, str(second))
