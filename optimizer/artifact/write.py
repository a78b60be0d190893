"""Write an artifact: the weights in its format, every other small file, and the record of how it was made."""

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import safe_open

from optimizer.artifact.building import building
from optimizer.artifact.card import write_card
from optimizer.artifact.card_data import ORIGINAL_CARD
from optimizer.formats import FORMATS
from optimizer.formats.format import Calibrated, Context, Format
from optimizer.manifest import FORMAT_VERSION, Manifest, describe_files, versions, write_manifest
from optimizer.model import safetensors_file
from optimizer.model.checkpoint import Checkpoint
from optimizer.model.directory import MODULES, model_files, moved_to_root
from optimizer.model.shards import INDEX, SINGLE, weight_bytes
from optimizer.recipe import Output
from optimizer.stages.staging import Staged
from optimizer.stages.untouched import Remainder
from optimizer.yaml import dump

PICKLE = "model_optimized.pt"
_INDEX = ".index.json"
_WEIGHT_SUFFIXES = (
    ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".gguf", ".ot", ".npz", _INDEX,
)  # fmt: skip
_EXPORT_FOLDERS = {"onnx", "openvino"}
_EXPORTS = ("*.onnx", "*.onnx_data", "openvino_model*.xml", "openvino_model*.bin")
_OURS = {"config.json", "manifest.json", "recipe.yaml"}
_LARGEST_COPY = 64 << 20

log = logging.getLogger(__name__)


def write(
    staged: Staged,
    place: Path,
    keep: Path | None = None,
    threads: int = 1,
    calibration: Calibrated | None = None,
    alone: Remainder | None = None,
    commit: str | None = None,
) -> Manifest:
    """Write what `staged` holds as an artifact at `place`, as its recipe says, and return its manifest.

    What was at `place` is kept as `keep`, or removed if that is None; `threads` does not decide bytes, except where
    there is a `calibration`, which a recipe that is calibrated needs; `alone` is for the card, `commit` that of an
    original from the hub. Raises ArtifactError when the disk is full or cannot be written; then nothing is left behind.
    """
    original, output = staged.original, Output.of(staged.record)
    format_ = FORMATS[output.format]
    with building(place, keep, source=original.root) as directory:
        _copy_others(original, directory)
        _write_modules(staged, directory)
        tensors = format_.write(staged, directory, Context(output.engine_settings, threads, log.info, calibration))
        (directory / "recipe.yaml").write_text(dump(staged.record), encoding="utf-8")
        if output.also_pt:
            _write_pickle(format_, directory)
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            format=output.format,
            original=staged.name,
            original_fingerprint=original.fingerprint,
            original_bytes=weight_bytes(original.root),
            parameters=original.parameters,
            versions=versions((*staged.packages, *format_.packages)),
            files=describe_files(directory),
            calibration=calibration.record if calibration else None,
            tensors=tensors,
            original_commit=commit,
        )
        write_manifest(directory, manifest)
        write_card(directory, manifest, staged.record, figures=None, alone=alone)
    return manifest


def _copy_others(original: Checkpoint, directory: Path) -> None:
    """Every small file but weights; those of the folder that transformers loads lie where it looks for them."""
    files = model_files(original.root)
    incomplete = set(_incomplete(files))
    holders = {original.directory, *(shard.path.parent for shard in original.modules)}
    for path in files:
        name = path.relative_to(original.root)
        if _is_export(name):
            log.info("%s is left out: it is another form of the original", name)
            continue
        if path.name.endswith(_WEIGHT_SUFFIXES) and path.parent in holders:
            continue
        if path.stat().st_size > _LARGEST_COPY:
            log.warning("%s is left out: it is larger than %d MB", name, _LARGEST_COPY >> 20)
            continue
        if path in incomplete:
            log.warning("%s is left out: it is of no use without a file that is too large", name)
            continue
        target = _target(original, path)
        if str(target) in _OURS:
            continue
        (directory / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, directory / target)
    if original.directory != original.root:
        (directory / MODULES).write_text(moved_to_root(original.root), encoding="utf-8")


def _target(original: Checkpoint, path: Path) -> Path:
    """Where a file of the original goes; one that would take the place of another stays in its folder."""
    name = path.relative_to(original.root)
    if path.is_relative_to(original.directory):
        inner = path.relative_to(original.directory)
        name = name if inner != name and (original.root / inner).exists() else inner
    return Path(ORIGINAL_CARD) if str(name) == "README.md" else name


def _write_modules(staged: Staged, directory: Path) -> None:
    """The weights of other modules than the transformers model, plain in every format, as their library reads them."""
    stored: dict[Path, dict[str, dict[str, int]]] = {}
    for shard in staged.original.modules:
        path = directory / shard.output_name
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = ((weight.name.removeprefix(shard.weight("")), weight.tensor) for weight in staged.stream(shard))
        stored.setdefault(path.parent, {})[path.name] = safetensors_file.write(path, tensors)
    for folder, files in stored.items():
        if SINGLE not in files:
            safetensors_file.write_index(folder / INDEX, files)


def _incomplete(files: list[Path]) -> Iterator[Path]:
    """Weights under an index of which one is too large to be copied, the index among them: they are copied together."""
    for index in files:
        if index.name.endswith(_INDEX):
            with suppress(OSError, ValueError, KeyError, AttributeError, TypeError):  # no index of weights
                names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
                group = [index, *(path for path in files if path.parent == index.parent and path.name in names)]
                if any(path.stat().st_size > _LARGEST_COPY for path in group):
                    yield from group


def _is_export(file: Path) -> bool:
    """Whether it holds the original's weights for another engine, which the artifact's are not."""
    return not _EXPORT_FOLDERS.isdisjoint(file.parts[:-1]) or any(file.match(pattern) for pattern in _EXPORTS)


def _write_pickle(format_: Format, directory: Path) -> None:
    """The plain state dict. One tensor at a time is restored; what torch saves in one go is mapped from a file."""
    spool = directory / f"{PICKLE}.safetensors"
    names: list[str] = []

    def tensors() -> Iterator[tuple[str, torch.Tensor]]:
        for name, tensor in format_.plain(directory):
            names.append(name)
            yield name, tensor

    try:
        safetensors_file.write(spool, tensors())
        with safe_open(spool, framework="pt") as file:
            torch.save({name: file.get_tensor(name) for name in names}, directory / PICKLE)
    finally:
        spool.unlink(missing_ok=True)
