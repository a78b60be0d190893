"""Statistics on disk, so that a sweep and all its workers compute them once."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from optimizer import cached
from optimizer.calibration.statistics import Linear, Rows, Statistics

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
    with cached.one_at_a_time(path):
        known = _read(path)
        if known is None:
            known = compute()
            with contextlib.suppress(OSError):
                _write(path, known)
    return known


def _read(path: Path) -> Statistics | None:
    """What is stored there; None where there is nothing, or it is damaged."""
    file = cached.opened(path)
    if file is None:
        return None
    parts: dict[str, dict[str, Any]] = {part: {} for part in _PARTS}
    for name in file.keys():  # noqa: SIM118
        part, figure, module = name.split(":", 2)
        kind, figures = _PARTS[part]
        if figure == figures[0]:
            parts[part][module] = kind(*(file.get_tensor(f"{part}:{each}:{module}") for each in figures))
    return Statistics(int(file.metadata()["texts"]), parts["linear"], parts["rows"])


def _write(path: Path, known: Statistics) -> None:
    tensors = {
        f"{part}:{figure}:{module}": getattr(of, figure).contiguous()
        for part, (_, figures) in _PARTS.items()
        for module, of in getattr(known, part).items()
        for figure in figures
    }
    cached.write(path, tensors, {"texts": str(known.texts)})
