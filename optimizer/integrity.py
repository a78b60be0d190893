"""Whether a directory that is about to be loaded holds what its manifest says was written: files, and each tensor."""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from optimizer.manifest import AGAIN, Listed, Manifest, file_faults, find_manifest, refuse
from optimizer.model.loading import GENERATION
from optimizer.model.safetensors_file import NAMES, tensor_bytes
from optimizer.model.shards import INDEX, Shard, open_shards, stored_tensors
from optimizer.processes.cores import cores

_READ = ("config.json", GENERATION, INDEX)
"""What transformers reads beside the weights."""
_STORED = "stored_sha256"
_LARGE = 4 << 20  # bytes of a file that are worth threads


def describe(tensor: torch.Tensor, stored: torch.Tensor | None = None) -> dict[str, Any]:
    """What a manifest says of a tensor, in whose place `stored` is written, None where that is the tensor itself."""
    said = {"shape": [*tensor.shape], "dtype": NAMES[tensor.dtype], "sha256": _digest(tensor)}
    return said if stored is None else said | {_STORED: _digest(stored)}


def check(directory: Path) -> None:
    """Raise ArtifactError, in one line, where an artifact is not what was written, before anything of it is loaded.

    Nothing is checked of a directory without a manifest.
    """
    if manifest := find_manifest(directory):
        check_files(directory, manifest)
        check_tensors(directory, manifest)


def check_files(directory: Path, manifest: Manifest, *, every: bool = False) -> None:
    """The same of the files that are read beside the weights; of `every` file too where no tensors are listed."""
    every = every or manifest.tensors is None
    refuse(file_faults(directory, {name: said for name, said in manifest.files.items() if every or name in _READ}))


def check_tensors(directory: Path, manifest: Manifest) -> None:
    """The same of the tensors, where they are listed; ModelError for weight files that cannot be read at all."""
    if manifest.tensors is not None:
        refuse(tensor_faults(directory, manifest.tensors))


def tensor_faults(directory: Path, listed: Listed) -> Iterator[str]:
    """A line for each tensor that is missing, not listed, or not as listed: all names and headers before any value.

    Raises ModelError for weight files that cannot be read.
    """
    shards = open_shards(directory)
    yield from _misnamed(directory, shards, listed)
    sound: list[tuple[Shard, list[str]]] = []
    for shard in shards:
        known = [name for name in shard.shapes if name in listed]
        faults = {name: fault for name in known if (fault := _header_fault(shard, name, listed[name]))}
        yield from faults.values()
        sound.append((shard, [name for name in known if name not in faults]))
    written = _names(listed)
    for shard, names in sound:
        for name, digest in _digests(shard, names):
            if digest != _listed_digest(listed[name]):
                other = written.get(digest)
                values = f"the values of {other}" if other else "other values than were written"
                yield f"{shard.path}: {name}: holds {values}; {AGAIN}"


def _misnamed(directory: Path, shards: Sequence[Shard], listed: Listed) -> Iterator[str]:
    missing = set(listed).difference(*(shard.shapes for shard in shards))
    written = _names({name: listed[name] for name in missing})
    for shard in shards:
        for name, digest in _digests(shard, [name for name in shard.shapes if name not in listed]):
            other = written.pop(digest, None)
            missing.discard(other or "")
            said = f"was written as {other}" if other else "is none of the tensors that were written"
            yield f"{shard.path}: {name}: {said}; {AGAIN}"
    for name in sorted(missing):
        yield f"{directory}: {name}: is missing from the weights; {AGAIN}"


def _header_fault(shard: Shard, name: str, said: dict[str, Any]) -> str | None:
    dtype, shape = NAMES[shard.dtypes[name]], [*shard.shapes[name]]
    found = f"{shard.path}: {name}: is {dtype} of shape {shape}"
    if _STORED in said:
        return None if dtype == "U8" and len(shape) == 1 else f"{found}, not the payload that was written; {AGAIN}"
    expected = said.get("dtype"), said.get("shape")
    return None if (dtype, shape) == expected else f"{found}, written were {expected[0]} and {expected[1]}; {AGAIN}"


def _names(listed: Listed) -> dict[str | None, str]:
    return {_listed_digest(said): name for name, said in listed.items()}


def _listed_digest(said: dict[str, Any]) -> str | None:
    """The sha256 of what is stored, by the manifest."""
    return said.get(_STORED, said.get("sha256"))


def _digests(shard: Shard, names: list[str]) -> list[tuple[str, str]]:
    """The sha256 of the named tensors as stored; the file is mapped, and a large one is read by several threads."""
    # Inside transformers' loading new tensors are on the meta device.
    with torch.device("cpu"):
        tensors = (tensor for _, tensor in stored_tensors(shard.path, names))
        if shard.path.stat().st_size < _LARGE:
            return list(zip(names, map(_digest, tensors), strict=True))
        with ThreadPoolExecutor(cores()) as pool:
            return list(zip(names, pool.map(_digest, tensors), strict=True))


def _digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor_bytes(tensor)).hexdigest()
