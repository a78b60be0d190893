"""Packed artifacts unpacked first, then given to what transformers promises to keep: any release of it from 5.0 on."""

import shutil
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from optimizer.errors import ArtifactError, PackageError, install
from optimizer.integrity import describe
from optimizer.manifest import Listed
from optimizer.model import loading, safetensors_file
from optimizer.model.checkpoint import read_config
from optimizer.model.loading import GENERATION
from optimizer.model.runnable import Runnable
from optimizer.model.shards import INDEX, Shard, open_shards, stored_tensors
from optimizer.packing.marker import FORMAT_VERSION, unmarked
from optimizer.packing.payload import PayloadError, is_payload, unpack
from optimizer.processes.cores import cores

_BITSANDBYTES = "bitsandbytes"


def load(directory: Path, **options: Any) -> Runnable:
    """The model that the dense artifact would give; `options` go to `from_pretrained` (dtype, device_map, ...).

    Unpacked in memory, or, where another library reads the weights, in a temporary folder. Raises ArtifactError for a
    damaged payload, PackageError where that library is missing.
    """
    config, marker = unmarked(read_config(directory))
    if (version := marker.get("format_version")) != FORMAT_VERSION:
        raise ArtifactError(
            f"{directory}: packed format version {version} is not {FORMAT_VERSION}; load it with the release that "
            "wrote it"
        )
    if _BITSANDBYTES in marker:
        if find_spec(_BITSANDBYTES) is None:
            raise PackageError(f"{directory}: needs the package {_BITSANDBYTES}; run: {install(_BITSANDBYTES)}")
        with tempfile.TemporaryDirectory() as folder:
            write_dense(directory, Path(folder))
            if (directory / GENERATION).exists():
                shutil.copyfile(directory / GENERATION, Path(folder) / GENERATION)
            return _named(loading.load(folder, **options), directory)
    state = {name: tensor for shard in open_shards(directory) for name, tensor in restored(shard)}
    return _named(loading.from_state(directory, config, state, **options), directory)


def write_dense(directory: Path, output: Path) -> tuple[set[str], Listed]:
    """Write config.json and the weights as the dense format has them: the files' names, and what their tensors are.

    Raises ArtifactError for a damaged payload.
    """
    config, marker = unmarked(read_config(directory))
    dtype: torch.dtype | None = None
    if _BITSANDBYTES in marker:
        config["quantization_config"] = marker[_BITSANDBYTES]
        # Beside bitsandbytes, a plain weight loads in the dtype it is stored in, whatever config.json says.
        dtype = getattr(torch, config.get("dtype") or "float32")
    loading.write_config(output, config)
    described = Listed()

    def tensors(shard: Shard) -> Iterator[tuple[str, torch.Tensor]]:
        for name, tensor in restored(shard):
            if dtype is not None and tensor.dtype in (torch.float16, torch.bfloat16):  # no part of a library's own
                tensor = tensor.to(dtype)
            described[name] = describe(tensor)
            yield name, tensor

    stored = {
        shard.path.name: safetensors_file.write(output / shard.path.name, tensors(shard))
        for shard in open_shards(directory)
    }
    if (directory / INDEX).exists():
        safetensors_file.write_index(output / INDEX, stored)
    return {"config.json", INDEX, *stored}, described


def restored(shard: Shard) -> Iterator[tuple[str, torch.Tensor]]:
    """The values of each payload of a file, one after the other; ArtifactError for a damaged one."""
    for name, stored in stored_tensors(shard.path, list(shard.shapes)):
        try:
            tensor = unpack(stored, threads=cores()) if is_payload(stored) else stored
        except PayloadError as error:
            raise ArtifactError(f"{shard.path}: {name}: cannot be unpacked: {error}") from None
        yield name, tensor


def _named(model: Any, directory: Path) -> Runnable:
    """The model under the name of where it really lies."""
    model.config.name_or_path = model.name_or_path = str(directory)
    named: Runnable = model
    return named
