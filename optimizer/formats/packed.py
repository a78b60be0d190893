"""The packed format: matrices as entropy-coded payloads under their own names, which load after `import optimizer`.

A payload's shape is never the weight's, so that without the plug-in loading stops instead of giving random weights;
vectors and single values are stored plain, because a payload of the right length would pass for one.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from optimizer.errors import ArtifactError
from optimizer.formats.safetensors import Safetensors, write_config
from optimizer.model import safetensors_file
from optimizer.model.checkpoint import INDEX, Shard, open_shards, read_config, stored_tensors
from optimizer.model.outline import Entry
from optimizer.model.weight import MATRICES, Role, Weight
from optimizer.packing.marker import FORMAT_VERSION, METHOD
from optimizer.packing.payload import PayloadError, is_payload, pack, stored_codes, unpack
from optimizer.processes.cores import cores

_MATRIX = 2


class Packed(Safetensors):
    """Payloads, and a marker in config.json that makes transformers call the plug-in."""

    name = "packed"
    how_to_load = (
        "The format is `packed`: `from_pretrained` loads it as well, after `import optimizer`, and fails without it.\n"
        "Never give it `ignore_mismatched_sizes=True`, which without that import would load random weights.\n"
        "`python -m optimizer.unpack THIS_DIRECTORY OUT` writes one that needs no package."
    )
    casts = True
    unpacks_to: str | None = "dense"

    def store(self, weight: Weight, threads: int) -> torch.Tensor:
        """A payload for matrices that the plug-in meets, else the values."""
        values = weight.codes.values if weight.codes else weight.tensor
        if weight.module is None or not _is_packed(weight.name, weight.role, values.ndim):
            return weight.tensor
        return pack(weight, threads)

    def restore(self, stored: torch.Tensor) -> torch.Tensor:
        """The values in a payload."""
        return unpack(stored, threads=cores()) if is_payload(stored) else stored

    def codes(self, stored: torch.Tensor) -> torch.Tensor:
        """The integers in a payload of codes, else the values."""
        return stored_codes(stored, threads=cores()) if is_payload(stored) else stored

    def configure(self, config: dict[str, Any]) -> dict[str, Any]:
        """With the marker, around what another library finds there in a dense artifact."""
        marker: dict[str, Any] = {"quant_method": METHOD, "format_version": FORMAT_VERSION}
        if "quantization_config" in config:
            marker["bitsandbytes"] = config["quantization_config"]
        return config | {"quantization_config": marker}

    def bits(self, entry: Entry) -> float:
        """Those of its codes where they are packed, else of its dtype: no zeros are counted on to save something."""
        if entry.quantized is None:
            return entry.plain_bits
        packed = entry.place is not None and _is_packed(entry.name, entry.place.role, len(entry.shape))
        return min(entry.quantized.bits, entry.plain_bits) if packed or entry.quantized.fixed else entry.plain_bits

    def unpack(self, directory: Path, output: Path) -> set[str]:
        """Write config.json and the weights as the dense format has them.

        Raises ArtifactError for a damaged payload.
        """
        config = read_config(directory)
        dtype: torch.dtype | None = None
        marker = config.pop("quantization_config")
        if "bitsandbytes" in marker:
            config["quantization_config"] = marker["bitsandbytes"]
            # Beside bitsandbytes, a plain weight loads in the dtype it is stored in, whatever config.json says.
            dtype = getattr(torch, config.get("dtype") or "float32")
        write_config(output, config)
        shards = open_shards(directory)
        stored = {
            shard.path.name: safetensors_file.write(output / shard.path.name, self._restored(shard, dtype))
            for shard in shards
        }
        if (directory / INDEX).exists():
            safetensors_file.write_index(output / INDEX, stored)
        return {"config.json", INDEX, *stored}

    def _restored(self, shard: Shard, dtype: torch.dtype | None) -> Iterator[tuple[str, torch.Tensor]]:
        for name, stored in stored_tensors(shard.path, list(shard.shapes)):
            try:
                tensor = self.restore(stored)
            except PayloadError as error:
                raise ArtifactError(f"{shard.path}: {name}: cannot be unpacked: {error}") from None
            plain = dtype is not None and tensor.is_floating_point() and name.endswith(".weight")
            yield name, tensor.to(dtype) if plain else tensor


def _is_packed(name: str, role: Role | None, axes: int) -> bool:
    """Whether a tensor that the model knows is stored as a payload: any matrix, whatever it is called."""
    return axes >= _MATRIX and (role in MATRICES or name.endswith("weight"))
