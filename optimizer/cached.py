"""What is computed once and kept on disk: tensors in a file with their sha256, which one process makes for all."""

import contextlib
import hashlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from optimizer.files import replacing

_DIGEST = "sha256"

_log = logging.getLogger(__name__)


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Let only one process make what `path` will hold."""
    lock = FileLock(path.with_suffix(".lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError:  # what cannot be locked cannot be kept either, and each makes it for itself
        _log.debug("%s cannot be locked", path)
    try:
        yield
    finally:
        lock.release()


def write(path: Path, tensors: Mapping[str, Tensor], said: Mapping[str, str] | None = None) -> None:
    """Store tensors, and what is `said` of them, under one name at once; OSError if they cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = _digest(tensors[name] for name in sorted(tensors))
    with replacing(path) as partial:
        try:
            save_file(dict(tensors), partial, metadata={**(said or {}), _DIGEST: digest})
        except SafetensorError as error:  # how it reports a full disk
            raise OSError(str(error)) from error


def opened(path: Path) -> Any | None:
    """The open file of safetensors at `path`; None where there is none or it is damaged."""
    with contextlib.suppress(OSError, SafetensorError):
        file: Any = safe_open(path, framework="pt")  # open as long as it is read: writers put another in its place
        names = sorted(file.keys())
        if (file.metadata() or {}).get(_DIGEST) == _digest(file.get_tensor(name) for name in names):
            return file
    return None


def _digest(tensors: Iterator[Tensor]) -> str:
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
