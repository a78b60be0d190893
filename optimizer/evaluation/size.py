"""How large an artifact is and how many zeros it holds, read from its files."""

from collections.abc import Iterator
from pathlib import Path

import torch

from optimizer.model.checkpoint import Checkpoint, open_shards, read_config, stored_tensors, weight_bytes
from optimizer.packing.payload import is_payload, stored_codes

_BITS_PER_BYTE = 8


def measure(original: Checkpoint, artifact: Path) -> dict[str, int | float]:
    """The row's size figures; `sparsity` counts zeros over all stored weights, codes included, scales excluded."""
    original_bytes = weight_bytes(original.directory)
    artifact_bytes = weight_bytes(artifact)
    values = zeros = 0
    for count, zero in _counts(original, artifact):
        values += count
        zeros += zero
    return {
        "parameters": original.parameters,
        "original_bytes": original_bytes,
        "artifact_bytes": artifact_bytes,
        "size_ratio": artifact_bytes / original_bytes,
        "bits_per_parameter": _BITS_PER_BYTE * artifact_bytes / original.parameters,
        "sparsity": zeros / values if values else 0.0,
    }


def _counts(original: Checkpoint, artifact: Path) -> Iterator[tuple[int, int]]:
    """For each stored weight, how many values it holds and how many of them are zero."""
    quantization = read_config(artifact).get("quantization_config") or {}
    four_bits = quantization.get("bitsandbytes", quantization).get("load_in_4bit", False)
    for shard in open_shards(artifact):
        names = [name for name in shard.shapes if name in original.places]
        maps = {f"{name}.quant_map": name for name in names if f"{name}.quant_map" in shard.shapes and four_bits}
        levels = {maps[name]: tensor for name, tensor in stored_tensors(shard.path, list(maps))}
        for name, tensor in stored_tensors(shard.path, names):
            if name in levels:
                yield _four_bit_counts(tensor, levels[name])
            else:
                values = stored_codes(tensor) if is_payload(tensor) else tensor
                yield values.numel(), int((values == 0).sum())


def _four_bit_counts(codes: torch.Tensor, values: torch.Tensor) -> tuple[int, int]:
    histogram = torch.bincount(codes.flatten() >> 4, minlength=16) + torch.bincount(codes.flatten() & 15, minlength=16)
    return int(histogram.sum()), int(histogram[values == 0].sum())
