"""The packed format: matrices as entropy-coded payloads under their own names, which load after `import optimizer`.

A payload's shape is never the weight's, so that without the plug-in loading stops instead of giving random weights;
vectors and single values are stored plain, because a payload of the right length would pass for one.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from optimizer.formats.safetensors import Safetensors
from optimizer.integrity import describe
from optimizer.loading.packed import restored, write_dense
from optimizer.manifest import Listed
from optimizer.model.outline import Entry
from optimizer.model.shards import Shard
from optimizer.model.weight import MATRICES, Role, Weight
from optimizer.packing.marker import marked
from optimizer.packing.payload import is_payload, pack, stored_codes
from optimizer.processes.cores import cores

_MATRIX = 2


class Packed(Safetensors):
    """Payloads, and a marker in config.json that makes transformers call the plug-in, which checks what it loads."""

    name = "packed"
    how_to_load = (
        "The format is `packed`: `from_pretrained` loads it as well, after `import optimizer`, and fails without it.\n"
        "`python -m optimizer.unpack THIS_DIRECTORY OUT` writes one that loads without this package."
    )
    casts = True
    unpacks_to: str | None = "dense"

    def store(self, weight: Weight, threads: int) -> torch.Tensor:
        """A payload for matrices that the plug-in meets, else the values."""
        values = weight.codes.values if weight.codes else weight.tensor
        if weight.module is None or not _is_packed(weight.name, weight.role, values.ndim):
            return weight.tensor
        return pack(weight, threads)

    def describe(self, weight: Weight, stored: torch.Tensor) -> dict[str, Any]:
        """The weight, and the payload in its place."""
        return describe(weight.tensor, stored) if is_payload(stored) else describe(stored)

    def codes(self, stored: torch.Tensor) -> torch.Tensor:
        """The integers in a payload of codes, else the values."""
        return stored_codes(stored, threads=cores()) if is_payload(stored) else stored

    def configure(self, config: dict[str, Any]) -> dict[str, Any]:
        """With the marker, around what another library finds there in a dense artifact."""
        return marked(config)

    def bits(self, entry: Entry) -> float:
        """Those of its codes where they are packed, else of its dtype: no zeros are counted on to save something."""
        if entry.quantized is None:
            return entry.plain_bits
        packed = entry.place is not None and _is_packed(entry.name, entry.place.role, len(entry.shape))
        return min(entry.quantized.bits, entry.plain_bits) if packed or entry.quantized.fixed else entry.plain_bits

    def unpack(self, directory: Path, output: Path) -> tuple[set[str], Listed | None]:
        """Write config.json and the weights as the dense format has them; ArtifactError for a damaged payload."""
        return write_dense(directory, output)

    def restored(self, shard: Shard) -> Iterator[tuple[str, torch.Tensor]]:
        """The values of each payload; ArtifactError for a damaged one."""
        return restored(shard)


def _is_packed(name: str, role: Role | None, axes: int) -> bool:
    """Whether a tensor that the model knows is stored as a payload: any matrix, whatever it is called."""
    return axes >= _MATRIX and (role in MATRICES or name.endswith("weight"))
