"""What the formats share that transformers loads: config.json, and safetensors files as the original has them."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from optimizer.formats.format import Context, Stored
from optimizer.integrity import describe
from optimizer.manifest import Listed
from optimizer.model import safetensors_file
from optimizer.model.loading import write_config
from optimizer.model.outline import Entry, Outline
from optimizer.model.shards import INDEX, Shard, open_shards, stored_tensors
from optimizer.model.weight import Parts, Weight
from optimizer.settings import Settings
from optimizer.stages.staging import Staged


class Safetensors:
    """A format that stores each tensor under its own name: as it is, unless it says otherwise."""

    name: str
    packages: tuple[str, ...] = ()
    extra: str | None = None
    how_to_load: str
    settings: type[Settings] | None = None
    casts: bool
    unpacks_to: str | None = None
    holds_weights = True

    def store(self, weight: Weight, threads: int) -> torch.Tensor:
        """What is written for a weight, or for one of its parts."""
        return weight.tensor

    def describe(self, weight: Weight, stored: torch.Tensor) -> dict[str, Any]:
        """What the manifest says of a weight that is written as `stored`."""
        return describe(stored)

    def codes(self, stored: torch.Tensor) -> torch.Tensor:
        """The numbers that are stored: integers of a quantized weight, else its values."""
        return stored

    def configure(self, config: dict[str, Any]) -> dict[str, Any]:
        """What config.json says, for values that it says of the staged model."""
        return config

    def bits(self, entry: Entry) -> float:
        """About how many bits a value of a tensor takes in the file; rather too many."""
        raise NotImplementedError

    def check(self, original: Outline) -> None:
        """Whatever transformers loads, it stores."""

    def calibrated(self, settings: Settings | None) -> bool:
        """It does not: what is stored is what the stages made."""
        return False

    def write(self, staged: Staged, directory: Path, context: Context) -> Listed | None:
        """Write the weights and config.json; one tensor at a time is in memory."""
        shards, described = staged.original.shards, Listed()
        with tqdm(total=sum(len(shard.shapes) for shard in shards), desc="optimize", **_BAR) as bar:

            def tensors(shard: Shard) -> Iterator[tuple[str, torch.Tensor]]:
                for weight in staged.stream(shard):
                    for part in _parts(weight):
                        tensor = self.store(part, context.threads)
                        described[part.name] = self.describe(part, tensor)
                        yield part.name, tensor
                    bar.update()

            stored = {
                shard.output_name: safetensors_file.write(directory / shard.output_name, tensors(shard))
                for shard in shards
            }
        if staged.original.index:
            safetensors_file.write_index(directory / INDEX, stored)
        config = dict(staged.outline.config)
        # The path that a model was saved from says nothing to its readers, and the bytes must not depend on it.
        config.pop("_name_or_path", None)
        write_config(directory, self.configure(config))
        return described

    def stored(self, directory: Path, names: Collection[str]) -> Stored:
        """What its files hold; `names` are the original's tensors, so that scales and their like do not count."""
        size = values = zeros = 0
        for shard in open_shards(directory):
            size += shard.path.stat().st_size
            known = [name for name in shard.shapes if name in names]
            # Codes of 4 bits stand for the numbers of a table beside them, of which one is zero.
            tables = {f"{name}.quant_map": name for name in known if f"{name}.quant_map" in shard.shapes}
            levels = {tables[name]: tensor for name, tensor in stored_tensors(shard.path, list(tables))}
            for name, tensor in stored_tensors(shard.path, known):
                codes = self.codes(tensor)
                counted = _in_halves(codes, levels[name]) if name in levels else _counted(codes)
                values, zeros = values + counted[0], zeros + counted[1]
        return Stored(size, values, zeros)

    def plain(self, directory: Path) -> Iterator[tuple[str, torch.Tensor]]:
        """The weights by their names, one at a time, as the dense format stores them."""
        for shard in open_shards(directory):
            yield from self.restored(shard)

    def restored(self, shard: Shard) -> Iterator[tuple[str, torch.Tensor]]:
        """What was stored in one file, the values, or codes of another library."""
        yield from stored_tensors(shard.path, list(shard.shapes))

    def unpack(self, directory: Path, output: Path) -> tuple[set[str], Listed | None]:
        """Only for a format that unpacks to another."""
        raise NotImplementedError


_BAR: dict[str, Any] = {"unit": "tensor", "disable": None, "leave": False}


def _parts(weight: Weight) -> Iterator[Weight]:
    """A weight, or each of the tensors that another library stores for it."""
    if isinstance(weight.stored, Parts):
        for name, tensor in weight.stored.tensors.items():
            yield Weight(name, tensor, None, weight.module)
    else:
        yield weight


def _counted(values: torch.Tensor) -> tuple[int, int]:
    return values.numel(), int((values == 0).sum())


def _in_halves(codes: torch.Tensor, levels: torch.Tensor) -> tuple[int, int]:
    """How many values two codes a byte are, and how many of them stand for a zero."""
    histogram = torch.bincount(codes.flatten() >> 4, minlength=16) + torch.bincount(codes.flatten() & 15, minlength=16)
    return int(histogram.sum()), int(histogram[levels == 0].sum())
