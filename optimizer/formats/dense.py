"""The dense format: every tensor as it is, which transformers reads without this package."""

from pathlib import Path
from typing import Any

import torch

from optimizer.errors import ArtifactError
from optimizer.formats.safetensors import Safetensors
from optimizer.integrity import check_tensors
from optimizer.manifest import find_manifest
from optimizer.model.checkpoint import INDEX, SINGLE, open_shards, stored_tensors
from optimizer.model.outline import Entry
from optimizer.model.runnable import Runnable
from optimizer.packing.payload import is_payload


class Dense(Safetensors):
    """Plain safetensors; codes are restored, but for those that another library reads."""

    name = "dense"
    how_to_load = "The format is `dense`: plain `from_pretrained` loads it as well, without this package."
    casts = False

    def bits(self, entry: Entry) -> float:
        """Those of its dtype; those of codes only where another library reads them."""
        return entry.quantized.bits if entry.quantized and entry.quantized.fixed else entry.plain_bits

    def load(self, directory: Path, **options: Any) -> Runnable:
        """The transformers model; `options` go to its `from_pretrained` (dtype, device_map, ...)."""
        if manifest := find_manifest(directory):
            check_tensors(directory, manifest)
        else:
            _refuse_payloads(directory)
        return super().load(directory, **options)


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
