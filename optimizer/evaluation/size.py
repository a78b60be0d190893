"""How large an artifact is and how many zeros it holds, read from its files."""

from pathlib import Path

from optimizer.formats import format_of
from optimizer.model.checkpoint import Checkpoint
from optimizer.model.shards import module_shards, stored_tensors, weight_bytes

_BITS_PER_BYTE = 8


def measure(original: Checkpoint, artifact: Path) -> dict[str, int | float]:
    """The row's size figures, those of modules beside the model included.

    `sparsity` counts zeros over all stored weights, codes included, scales excluded.
    """
    original_bytes = weight_bytes(original.root)
    stored = format_of(artifact).stored(artifact, original.places)
    size, values, zeros = stored.bytes, stored.values, stored.zeros
    for shard in module_shards(artifact):
        size += shard.path.stat().st_size
        for _, tensor in stored_tensors(shard.path, list(shard.shapes)):
            values, zeros = values + tensor.numel(), zeros + int((tensor == 0).sum())
    return {
        "parameters": original.parameters,
        "original_bytes": original_bytes,
        "artifact_bytes": size,
        "size_ratio": size / original_bytes,
        "bits_per_parameter": _BITS_PER_BYTE * size / original.parameters,
        "sparsity": zeros / values if values else 0.0,
    }
