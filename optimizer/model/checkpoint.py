"""A model directory as a lazy, re-readable stream of weights with their roles."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from optimizer.errors import ModelError, first_line
from optimizer.model import internals
from optimizer.model.directory import Module, fingerprint, home, modules, stamps
from optimizer.model.outline import Entry, Outline
from optimizer.model.roles import linear_modules, place_in_module, places
from optimizer.model.safetensors_file import DTYPES
from optimizer.model.task import Task, auto_class, has_head, task_of
from optimizer.model.weight import Place, Weight

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
