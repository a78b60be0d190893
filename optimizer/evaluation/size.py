"""How large an artifact is and how many zeros it holds, read from its files."""

from pathlib import Path

from optimizer.formats import format_of
from optimizer.model.checkpoint import Checkpoint, weight_bytes

_BITS_PER_BYTE = 8


def measure(original: Checkpoint, artifact: Path) -> dict[str, int | float]:
    """The row's size figures; `sparsity` counts zeros over all stored weights, codes included, scales excluded."""
    original_bytes = weight_bytes(original.directory)
    stored = format_of(artifact).stored(artifact, original.places)
    return {
        "parameters": original.parameters,
        "original_bytes": original_bytes,
        "artifact_bytes": stored.bytes,
        "size_ratio": stored.bytes / original_bytes,
        "bits_per_parameter": _BITS_PER_BYTE * stored.bytes / original.parameters,
        "sparsity": stored.zeros / stored.values if stored.values else 0.0,
    }
