"""Write the dense artifact of a packed one, for those who want no dependency: `python -m optimizer.unpack DIR OUT`."""

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from optimizer.artifact.card import write_card
from optimizer.artifact.exchange import put_in_place
from optimizer.artifact.manifest import describe_files, verify, write_manifest
from optimizer.errors import ArtifactError, OptimizerError
from optimizer.formats.packed import restore
from optimizer.model import safetensors_file
from optimizer.model.checkpoint import INDEX, Shard, open_shards, read_config
from optimizer.packing.payload import PayloadError
from optimizer.yaml import dump, load

RECIPE = "recipe.yaml"


def unpack(directory: Path, output: Path) -> None:
    """Write to `output` what plain `from_pretrained` loads as the same model that `directory` holds packed.

    Raises ArtifactError when `directory` is no packed artifact or is damaged, or `output` exists or cannot be written.
    """
    manifest = verify(directory)
    if manifest.format != "packed":
        raise ArtifactError(f"{directory}: is a {manifest.format} artifact already; copy it as it is")
    if output.exists():
        raise ArtifactError(f"{output}: exists; write another path")
    partial = output.with_name(output.name + ".partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _fill(directory, partial, list(manifest.files))
        made_by = load(directory / RECIPE) | {"format": "dense"}
        (partial / RECIPE).write_text(dump(made_by), encoding="utf-8")
        dense = replace(manifest, format="dense", files=describe_files(partial))
        write_manifest(partial, dense)
        write_card(partial, dense, made_by, figures=None)
        put_in_place(partial, output)
    except OSError as error:
        raise ArtifactError(f"{output}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _fill(directory: Path, output: Path, names: list[str]) -> None:
    config = read_config(directory)
    dtype: torch.dtype | None = None
    marker = config.pop("quantization_config")
    if "bitsandbytes" in marker:
        config["quantization_config"] = marker["bitsandbytes"]
        # Beside bitsandbytes, a plain weight loads in the dtype it is stored in, whatever config.json says.
        dtype = getattr(torch, config.get("dtype") or "float32")
    shards = open_shards(directory)
    for name in names:
        if name not in {shard.path.name for shard in shards} and name not in ("config.json", INDEX):
            (output / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(directory / name, output / name)
    (output / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    stored = {
        shard.path.name: safetensors_file.write(output / shard.path.name, _tensors(shard, dtype)) for shard in shards
    }
    if (directory / INDEX).exists():
        safetensors_file.write_index(output / INDEX, stored)


def _tensors(shard: Shard, dtype: torch.dtype | None) -> Iterator[tuple[str, torch.Tensor]]:
    with safe_open(shard.path, framework="pt") as file:
        for name in shard.shapes:
            try:
                tensor = restore(file.get_tensor(name))
            except PayloadError as error:
                raise ArtifactError(f"{shard.path}: {name}: cannot be unpacked: {error}") from None
            plain = dtype is not None and tensor.is_floating_point() and name.endswith(".weight")
            yield name, tensor.to(dtype) if plain else tensor


def main(arguments: list[str]) -> int:
    """Unpack from the command line; the exit code is 0, or 2 with one line on stderr."""
    parser = argparse.ArgumentParser(prog="python -m optimizer.unpack", description=(__doc__ or "").partition(",")[0])
    parser.add_argument("directory", type=Path, metavar="DIR", help="a packed artifact")
    parser.add_argument("output", type=Path, metavar="OUT", help="where the dense one goes")
    given: Any = parser.parse_args(arguments)
    try:
        unpack(given.directory, given.output)
    except OptimizerError as error:
        print(f"unpack: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
