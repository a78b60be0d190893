"""What transformers loads by itself."""

from pathlib import Path
from typing import Any

import torch

from optimizer.errors import ArtifactError
from optimizer.manifest import find_manifest
from optimizer.model import loading
from optimizer.model.runnable import Runnable
from optimizer.model.shards import INDEX, SINGLE, open_shards, stored_tensors
from optimizer.packing.payload import is_payload


def load(directory: Path, **options: Any) -> Runnable:
    """The transformers model; `options` go to its `from_pretrained` (dtype, device_map, ...)."""
    if find_manifest(directory) is None:  # else its tensors are those that were written
        _refuse_payloads(directory)
    model: Runnable = loading.load(directory, **options)
    return model


def _refuse_payloads(directory: Path) -> None:
    """ArtifactError for a packed artifact whose config.json has lost the marker, which transformers would go by."""
    if not ((directory / SINGLE).exists() or (directory / INDEX).exists()):
        return
    for shard in open_shards(directory):
        flat = [name for name, dtype in shard.dtypes.items() if dtype == torch.uint8 and len(shard.shapes[name]) == 1]
        for name, tensor in stored_tensors(shard.path, flat):
            if is_payload(tensor):
                raise ArtifactError(
                    f"{shard.path}: {name}: is packed, but {directory / 'config.json'} does not say so; put back the "
                    "config.json that was written with it"
                )
