"""Statistics on disk, so that a sweep and all its workers compute them once."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from optimizer.calibration.statistics import Linear, Rows, Statistics
from optimizer.files import replacing

_VERSION = 1
"""Counted up when the same model and texts give other statistics."""
_PARTS: dict[str, tuple[type[Linear | Rows], tuple[str, str]]] = {
    "linear": (Linear, ("inputs", "outputs")),
    "rows": (Rows, ("gradients", "seen")),
}


def stored(folder: Path, of: Mapping[str, Any], compute: Callable[[], Statistics]) -> Statistics:
    """The statistics of what `of` describes, from the folder; computed, and kept there, where it has none.

    `of` is all that decides them. Processes that need the same wait for the one that computes them. A folder that
    cannot be written is done without.
    """
    digest = hashlib.sha256(json.dumps({"version": _VERSION, **of}, sort_keys=True).encode()).hexdigest()[:32]
    path = folder / f"statistics-{digest}.safetensors"
    with contextlib.ExitStack() as locks:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            locks.enter_context(FileLock(path.with_suffix(".lock")))
        known = _read(path)
        if known is None:
            known = compute()
            with contextlib.suppress(OSError, SafetensorError):  # the latter is how it reports a full disk
                _write(path, known)
    return known


def _read(path: Path) -> Statistics | None:
    """What is stored there; None where there is nothing, or it is damaged."""
    with contextlib.suppress(OSError, SafetensorError, KeyError, ValueError), safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        said = file.metadata() or {}
        if said.get("sha256") != _digest(tensors):
            return None
        parts: dict[str, dict[str, Any]] = {part: {} for part in _PARTS}
        for name in tensors:
            part, figure, module = name.split(":", 2)
            kind, figures = _PARTS[part]
            if figure == figures[0]:
                parts[part][module] = kind(*(tensors[f"{part}:{each}:{module}"] for each in figures))
        return Statistics(int(said["texts"]), parts["linear"], parts["rows"])
    return None


def _write(path: Path, known: Statistics) -> None:
    tensors = {
        f"{part}:{figure}:{module}": getattr(of, figure).contiguous()
        for part, (_, figures) in _PARTS.items()
        for module, of in getattr(known, part).items()
        for figure in figures
    }
    with replacing(path) as partial:
        save_file(tensors, partial, metadata={"texts": str(known.texts), "sha256": _digest(tensors)})


def _digest(tensors: Mapping[str, Tensor]) -> str:
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(name.encode())
        total.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
