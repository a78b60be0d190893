"""Write an artifact: complete under its name, or not there at all."""

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from tqdm import tqdm

from optimizer.artifact.card import write_card
from optimizer.artifact.exchange import put_in_place, recover
from optimizer.artifact.manifest import FORMAT_VERSION, Manifest, describe_files, versions, write_manifest
from optimizer.errors import ArtifactError
from optimizer.formats import FORMATS, packed
from optimizer.model import safetensors_file
from optimizer.model.checkpoint import INDEX, Checkpoint, Shard, model_files, weight_bytes
from optimizer.model.weight import Weight
from optimizer.recipe import Recipe
from optimizer.stages.staging import Staged
from optimizer.yaml import dump

PICKLE = "model_optimized.pt"
_WEIGHT_SUFFIXES = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".gguf", ".ot", ".npz"}
_OURS = {"config.json", "manifest.json", "recipe.yaml"}
_LARGEST_COPY = 64 << 20

log = logging.getLogger(__name__)


def write(staged: Staged, recipe: Recipe, original: str, place: Path, keep: Path | None = None) -> Manifest:
    """Write what `staged` streams as an artifact at `place` and return its manifest.

    What was at `place` is kept as `keep`, or removed if that is None. Raises ArtifactError when the disk is full or
    cannot be written; then nothing is left behind.
    """
    partial = partial_name(place)
    try:
        shutil.rmtree(partial, ignore_errors=True)
        if put_right := recover(place):
            log.warning("%s", put_right)
        partial.mkdir(parents=True)
        manifest = _fill(partial, staged, recipe, original)
        put_in_place(partial, place, keep)
    except OSError as error:
        raise ArtifactError(_what_failed(error, staged.checkpoint.directory, place)) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


def _what_failed(error: OSError, original: Path, place: Path) -> str:
    """One line that blames the file of the original that could not be read, or else the artifact."""
    reason = error.strerror or error
    if isinstance(error.filename, str | os.PathLike) and error.filename2 is None:  # two names: a copy or a renaming
        file = Path(error.filename)
        ours = file.is_relative_to(partial_name(place)) or place.is_relative_to(file)
        if file.is_relative_to(original) and not ours:
            return f"{file}: cannot be read ({reason})"
    return f"{place}: cannot be written ({reason})"


def partial_name(place: Path) -> Path:
    """Where an artifact is built that will be at `place` when it is complete."""
    return place.with_name(f"{place.name}.partial")


def _fill(directory: Path, staged: Staged, recipe: Recipe, original: str) -> Manifest:
    checkpoint = staged.checkpoint
    _copy_others(checkpoint, directory)
    stored = _write_weights(staged, FORMATS[recipe.output.format].store, directory)
    if checkpoint.index:
        safetensors_file.write_index(directory / INDEX, stored)
    _write_config(checkpoint, staged.config, recipe.output.format, directory)
    (directory / "recipe.yaml").write_text(dump(recipe.made_by()), encoding="utf-8")
    if recipe.output.also_pt:
        _write_pickle(directory)
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        format=recipe.output.format,
        original=original,
        original_fingerprint=checkpoint.fingerprint,
        original_bytes=weight_bytes(checkpoint.directory),
        parameters=checkpoint.parameters,
        versions=versions(),
        files=describe_files(directory),
    )
    write_manifest(directory, manifest)
    write_card(directory, manifest, recipe.made_by(), figures=None)
    return manifest


def _copy_others(checkpoint: Checkpoint, directory: Path) -> None:
    for path in model_files(checkpoint.directory):
        relative = path.relative_to(checkpoint.directory)
        weights = path.suffix in _WEIGHT_SUFFIXES and path.parent == checkpoint.directory
        if weights or path.name.endswith(".index.json") or str(relative) in _OURS:
            continue
        if path.stat().st_size > _LARGEST_COPY:
            log.warning("%s is left out: it is larger than %d MB", relative, _LARGEST_COPY >> 20)
            continue
        target = directory / ("README.original.md" if str(relative) == "README.md" else relative)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def _write_weights(
    staged: Staged, store: Callable[[Weight], torch.Tensor], directory: Path
) -> dict[str, dict[str, int]]:
    """Bytes per tensor per file."""
    total = sum(len(shard.shapes) for shard in staged.checkpoint.shards)
    with tqdm(total=total, desc="optimize", unit="tensor", disable=None, leave=False) as bar:

        def tensors(shard: Shard) -> Iterator[tuple[str, torch.Tensor]]:
            for weight in staged.stream(shard):
                yield weight.name, store(weight)
                bar.update()

        return {
            shard.output_name: safetensors_file.write(directory / shard.output_name, tensors(shard))
            for shard in staged.checkpoint.shards
        }


def _write_config(checkpoint: Checkpoint, changes: Mapping[str, Any], output_format: str, directory: Path) -> None:
    merged = {**checkpoint.config, **changes}
    # The path that a model was saved from says nothing to its readers, and the bytes must not depend on it.
    merged.pop("_name_or_path", None)
    config = {key: value for key, value in merged.items() if not (key in changes and value is None)}
    config = FORMATS[output_format].configure(config)
    (directory / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_pickle(directory: Path) -> None:
    state: dict[str, torch.Tensor] = {}
    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            state |= {name: packed.restore(file.get_tensor(name)) for name in names}
    torch.save(state, directory / PICKLE)
