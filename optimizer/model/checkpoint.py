"""A model directory as a lazy, re-readable stream of weights with their roles."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from optimizer.errors import ModelError
from optimizer.model import internals
from optimizer.model.directory import fingerprint, home, stamps
from optimizer.model.outline import Entry, Outline
from optimizer.model.roles import linear_modules, place_in_module, places
from optimizer.model.shards import SINGLE, Shard, module_shards, open_shards, stored_tensors
from optimizer.model.task import Task, auto_class, has_head, task_of
from optimizer.model.weight import Place, Weight


@dataclass(frozen=True)
class Checkpoint:
    """A model directory whose headers have been read: nothing of its tensors is in memory, and it is small to pickle.

    `root` is the directory that was given, `directory` the one in it that transformers loads, which only older
    sentence-transformers models have apart; `shards` are the weight files there, `modules` those of other modules.
    `outline` is what the headers show, without `tied`: the aliases left out because the same values are stored under
    another name. `missing` are the model's parameters that no file holds: transformers draws them at random whenever
    it loads the model; `ties` the parameters that are others under a second name, each with that one's name.
    """

    root: Path
    directory: Path
    outline: Outline
    shards: tuple[Shard, ...]
    modules: tuple[Shard, ...]
    tied: tuple[str, ...]
    missing: tuple[str, ...]
    ties: Mapping[str, str]

    def __getstate__(self) -> dict[str, Any]:
        # A model does not travel: it is large, and torch refuses to pickle some (Wav2Vec2's parametrized layers).
        return {key: value for key, value in self.__dict__.items() if key != "model"}

    @cached_property
    def model(self) -> PreTrainedModel:
        """The model without values, on the meta device; built when first asked for in a process."""
        return internals.on_meta(self.directory, auto_class(self.task))

    @property
    def config(self) -> Mapping[str, Any]:
        """The values of config.json."""
        return self.outline.config

    @property
    def task(self) -> Task:
        """What the model is for."""
        return self.outline.task

    @cached_property
    def places(self) -> Mapping[str, Place]:
        """For each tensor that the model knows, where it stands."""
        return self.outline.places

    @property
    def unknown(self) -> tuple[str, ...]:
        """The tensors that the model does not know."""
        return tuple(name for name, entry in self.outline.entries.items() if entry.place is None)

    @property
    def index(self) -> bool:
        """Whether the weights are in files under an index."""
        return self.shards[0].output_name != SINGLE

    @property
    def parameters(self) -> int:
        """How many values the model's own tensors hold, tied ones once."""
        return self.outline.parameters

    @cached_property
    def fingerprint(self) -> str:
        """`fingerprint` of its files; once known it travels with the checkpoint to other processes."""
        return fingerprint(self.root)

    @cached_property
    def stamps(self) -> tuple[tuple[str, int, int], ...]:
        """`stamps` of its files when they were first asked for."""
        return stamps(self.root)

    def weights(self) -> Iterator[Weight]:
        """A fresh pass over all weights, one tensor in memory at a time, in the order of the files."""
        for shard in (*self.shards, *self.modules):
            yield from self.weights_of(shard)

    def weights_of(self, shard: Shard) -> Iterator[Weight]:
        """A fresh pass over one file's weights."""
        names = [name for name in shard.shapes if shard.weight(name) not in self.tied]
        for stored, tensor in stored_tensors(shard.path, names):
            name = shard.weight(stored)
            place = self.places.get(name)
            if place is None:
                yield Weight(name, tensor, None)
            else:
                yield Weight(name, tensor, place.role, place.module, place.input_axis)


def open_checkpoint(root: Path) -> Checkpoint:
    """Read config.json and the weight files' headers; ModelError in one line when something is missing or damaged."""
    directory = home(root)
    config = read_config(directory)
    if quantization := config.pop("quantization_config", None):
        if not isinstance(quantization, dict):
            raise ModelError(f"{directory / 'config.json'}: its quantization_config is no mapping; remove it")
        method = quantization.get("quant_method", "some method")
        raise ModelError(f"{directory}: is already quantized ({method}); give the original it was made from")
    shards, beside = open_shards(directory), module_shards(root)
    task = task_of(config)
    model = internals.on_meta(directory, auto_class(task))
    known = places(model, [name for shard in shards for name in shard.shapes])
    ties = internals.ties(model)
    tied = _aliases(shards, known, ties)
    entries = {
        name: Entry(name, shape, shard.dtypes[name], shard.output_name, known.get(name))
        for shard in shards
        for name, shape in shard.shapes.items()
        if name not in tied
    }
    entries |= {entry.name: entry for shard in beside for entry in _module_entries(shard)}
    linear = linear_modules(model, has_head=has_head(task))
    outline = Outline(config, task, entries, linear, internals.precise(model))
    stored = {place.parameter for place in outline.places.values()}
    checkpoint = Checkpoint(
        root=root,
        directory=directory,
        outline=outline,
        shards=shards,
        modules=beside,
        tied=tied,
        missing=tuple(
            name for name, _ in model.named_parameters() if name not in stored and ties.get(name) not in stored
        ),
        ties=ties,
    )
    checkpoint.__dict__["model"] = model  # the cached property's value: it need not be built twice
    return checkpoint


def _module_entries(shard: Shard) -> Iterator[Entry]:
    assert shard.module is not None
    for stored, shape in shard.shapes.items():
        name = shard.weight(stored)
        place = place_in_module(shard.module.kind, name, len(shape))
        yield Entry(name, shape, shard.dtypes[stored], shard.output_name, place)


def read_config(directory: Path) -> dict[str, Any]:
    """The values of a model directory's config.json; ModelError if there is none."""
    path = directory / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{directory}: holds no config.json; give the directory that save_pretrained wrote") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    if not isinstance(values, dict):
        raise ModelError(f"{path}: expected a JSON object")
    return values


def _aliases(shards: tuple[Shard, ...], known: Mapping[str, Place], ties: Mapping[str, str]) -> tuple[str, ...]:
    """The stored names whose values are stored under the name that the model ties them to as well."""
    stored = {place.parameter: name for name, place in known.items()}
    where = {name: shard for shard in shards for name in shard.shapes}
    found = []
    for target, source in ties.items():
        if target in stored and source in stored:
            alias, name = stored[target], stored[source]
            ((_, first),) = stored_tensors(where[alias].path, [alias])
            ((_, second),) = stored_tensors(where[name].path, [name])
            if torch.equal(first, second):
                found.append(alias)
    return tuple(found)
