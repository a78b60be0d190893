"""How large an artifact is and how many zeros it holds, read from its files."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from optimizer.checkpoint import Checkpoint, open_shards, weight_bytes
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
    config: dict[str, Any] = json.loads((artifact / "config.json").read_text(encoding="utf-8"))
    quantization = config.get("quantization_config") or {}
    four_bits = quantization.get("bitsandbytes", quantization).get("load_in_4bit", False)
    for shard in open_shards(artifact):
        with safe_open(shard.path, framework="pt") as file:
            for name in shard.shapes:
                if name not in original.places:
                    continue
                tensor = file.get_tensor(name)
                if is_payload(tensor):
                    tensor = stored_codes(tensor)
                if four_bits and f"{name}.quant_map" in shard.shapes:
                    yield _four_bit_counts(tensor, file.get_tensor(f"{name}.quant_map"))
                else:
                    yield tensor.numel(), int((tensor == 0).sum())


def _four_bit_counts(codes: torch.Tensor, values: torch.Tensor) -> tuple[int, int]:
    histogram = torch.bincount(codes.flatten() >> 4, minlength=16) + torch.bincount(codes.flatten() & 15, minlength=16)
    return int(histogram.sum()), int(histogram[values == 0].sum())
