"""The weight files of a model directory, with their headers read: safetensors, legacy pickles, files under an index."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from optimizer.errors import ModelError, first_line
from optimizer.model.directory import Module, home, modules
from optimizer.model.safetensors_file import DTYPES

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
LEGACY = "pytorch_model.bin"
LEGACY_INDEX = "pytorch_model.bin.index.json"
_WEIGHT_FILES = (SINGLE, INDEX, LEGACY, LEGACY_INDEX)


@dataclass(frozen=True)
class Shard:
    """One weight file: where it is, where it gets in an artifact, and its tensors' shapes and dtypes by name.

    `module` is whose weights they are, None for the transformers model's.
    """

    path: Path
    output_name: str
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, torch.dtype]
    module: Module | None = None

    def weight(self, name: str) -> str:
        """What a tensor of this file is called among all weights: a module's by its folder and its name."""
        return f"{self.module.folder}/{name}" if self.module else name


def weight_bytes(directory: Path) -> int:
    """The size of a model directory's weight files in bytes, headers included, those of its modules too."""
    shards = (*open_shards(home(directory)), *module_shards(directory))
    return sum(shard.path.stat().st_size for shard in shards)


def module_shards(directory: Path) -> tuple[Shard, ...]:
    """The weight files of a sentence-transformers directory that are not its transformers model's."""
    model, found = home(directory), list[Shard]()
    for module in modules(directory):
        place = directory / module.folder
        if place != model and any((place / name).exists() for name in _WEIGHT_FILES):
            shards = open_shards(place)
            names = (f"{module.folder}/{shard.output_name}" for shard in shards)
            found += [
                replace(shard, output_name=name, module=module) for shard, name in zip(shards, names, strict=True)
            ]
    return tuple(found)


def refuse_outside(directory: Path) -> None:
    """Raise ModelError where an index of weight files that transformers may follow leads out of the directory."""
    for kind in ("safetensors", "bin"):
        for index in sorted(directory.glob(f"*.{kind}.index*.json")):
            _names(index)


def open_shards(directory: Path) -> tuple[Shard, ...]:
    """The weight files of a model directory, safetensors before legacy pickles, with their headers read."""
    if (directory / SINGLE).exists():
        return (_shard(directory / SINGLE),)
    if (directory / INDEX).exists():
        return tuple(_shard(path) for path in _indexed(directory / INDEX))
    if (directory / LEGACY).exists():
        return (_shard(directory / LEGACY),)
    if (directory / LEGACY_INDEX).exists():
        return tuple(_shard(path) for path in _indexed(directory / LEGACY_INDEX))
    raise ModelError(f"{directory}: holds no weights; expected {SINGLE}, {INDEX}, {LEGACY} or {LEGACY_INDEX}")


def _names(index: Path) -> list[str]:
    try:
        names = sorted(map(str, set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(f"{index}: is not an index of weight files ({error})") from None
    if not names:
        raise ModelError(f"{index}: is not an index of weight files (it names none)")
    for name in names:
        if Path(name).name != name:
            raise ModelError(f"{index}: names '{name}', which is outside the model's directory")
    return names


def _indexed(index: Path) -> list[Path]:
    names = _names(index)
    for name in names:
        if not (index.parent / name).exists():
            raise ModelError(f"{index}: names {name}, which is missing; download the model again")
    return [index.parent / name for name in names]


def _shard(path: Path) -> Shard:
    if path.suffix == ".safetensors":
        with _safetensors(path) as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
            shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
            dtypes = {name: _dtype(path, name, part.get_dtype()) for name, part in slices.items()}
        return Shard(path, path.name, shapes, dtypes)
    output_name = path.name.replace("pytorch_model", "model").replace(".bin", ".safetensors")
    state = _pickled(path)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    return Shard(path, output_name, shapes, {name: tensor.dtype for name, tensor in state.items()})


def _dtype(path: Path, name: str, written: str) -> torch.dtype:
    try:
        return DTYPES[written]
    except KeyError:
        raise ModelError(f"{path}: {name} is stored as {written}, which cannot be read here") from None


def _safetensors(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        size = path.stat().st_size
        raise ModelError(f"{path}: cannot be read ({error}; {size} bytes); copy or download it again") from None


def _pickled(path: Path) -> dict[str, torch.Tensor]:
    try:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # written by torch < 1.6: not a zip, so it cannot be mapped
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelError(f"{path}: cannot be read as plain tensors ({first_line(error)})") from None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ModelError(f"{path}: expected a mapping of names to tensors")
    return dict(state)


def stored_tensors(path: Path, names: list[str]) -> Iterator[tuple[str, torch.Tensor]]:
    """The named tensors of a weight file, safetensors or legacy pickle, one after the other."""
    if path.suffix == ".safetensors":
        with _safetensors(path) as file:
            for name in names:
                yield name, file.get_tensor(name)
    else:
        state = _pickled(path)
        for name in names:
            yield name, state[name].detach().contiguous()
