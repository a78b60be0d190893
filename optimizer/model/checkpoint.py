"""A model directory as a lazy, re-readable stream of weights with their roles."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from optimizer.errors import ModelError, first_line
from optimizer.model import internals
from optimizer.model.outline import Entry, Outline
from optimizer.model.roles import linear_modules, places
from optimizer.model.safetensors_file import DTYPES
from optimizer.model.task import Task, auto_class, has_head, task_of
from optimizer.model.weight import Place, Weight

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
LEGACY = "pytorch_model.bin"
LEGACY_INDEX = "pytorch_model.bin.index.json"


@dataclass(frozen=True)
class Shard:
    """One weight file: the name it has, the name it gets in an artifact, and its tensors' shapes and dtypes by name."""

    path: Path
    output_name: str
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, torch.dtype]


@dataclass(frozen=True)
class Checkpoint:
    """A model directory whose headers have been read: nothing of its tensors is in memory, and it is small to pickle.

    `outline` is what the headers show, without `tied`: the aliases left out because the same values are stored under
    another name. `missing` are the model's parameters that no file holds: transformers draws them at random whenever
    it loads the model; `ties` the parameters that are others under a second name, each with that one's name.
    """

    directory: Path
    outline: Outline
    shards: tuple[Shard, ...]
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
        """`fingerprint` of its directory; once known it travels with the checkpoint to other processes."""
        return fingerprint(self.directory)

    @cached_property
    def stamps(self) -> tuple[tuple[str, int, int], ...]:
        """`stamps` of its directory when they were first asked for."""
        return stamps(self.directory)

    def weights(self) -> Iterator[Weight]:
        """A fresh pass over all weights, one tensor in memory at a time, in the order of the files."""
        for shard in self.shards:
            yield from self.weights_of(shard)

    def weights_of(self, shard: Shard) -> Iterator[Weight]:
        """A fresh pass over one file's weights."""
        names = [name for name in shard.shapes if name not in self.tied]
        for name, tensor in stored_tensors(shard.path, names):
            place = self.places.get(name)
            if place is None:
                yield Weight(name, tensor, None)
            else:
                yield Weight(name, tensor, place.role, place.module, place.input_axis)


def open_checkpoint(directory: Path) -> Checkpoint:
    """Read config.json and the weight files' headers; ModelError in one line when something is missing or damaged."""
    config = read_config(directory)
    if quantization := config.pop("quantization_config", None):
        if not isinstance(quantization, dict):
            raise ModelError(f"{directory / 'config.json'}: its quantization_config is no mapping; remove it")
        method = quantization.get("quant_method", "some method")
        raise ModelError(f"{directory}: is already quantized ({method}); give the original it was made from")
    shards = open_shards(directory)
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
    linear = linear_modules(model, has_head=has_head(task))
    outline = Outline(config, task, entries, linear, internals.precise(model))
    stored = {place.parameter for place in outline.places.values()}
    checkpoint = Checkpoint(
        directory=directory,
        outline=outline,
        shards=shards,
        tied=tied,
        missing=tuple(
            name for name, _ in model.named_parameters() if name not in stored and ties.get(name) not in stored
        ),
        ties=ties,
    )
    checkpoint.__dict__["model"] = model  # the cached property's value: it need not be built twice
    return checkpoint


def read_config(directory: Path) -> dict[str, Any]:
    """The values of a model directory's config.json; ModelError if there is none."""
    path = directory / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{directory}: holds no config.json; give the directory that save_pretrained wrote") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: {error}") from None
    if not isinstance(values, dict):
        raise ModelError(f"{path}: expected a JSON object")
    return values


def fingerprint(directory: Path) -> str:
    """sha256 over the names and contents of every visible file of a model directory, in hexadecimal.

    Raises ModelError for a file that cannot be read.
    """
    total = hashlib.sha256()
    for path in model_files(directory):
        try:
            stat = path.stat()
            digest = _digest(path, stat.st_size, stat.st_mtime_ns)
        except OSError as error:
            raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from None
        total.update(f"{path.relative_to(directory).as_posix()}\0{digest}\n".encode())
    return total.hexdigest()


def stamps(directory: Path) -> tuple[tuple[str, int, int], ...]:
    """Name, size and time of change of every visible file: what differs once a file has been written again."""
    found = []
    for path in model_files(directory):
        stat = path.stat()
        found.append((path.relative_to(directory).as_posix(), stat.st_size, stat.st_mtime_ns))
    return tuple(found)


def weight_bytes(directory: Path) -> int:
    """The size of a model directory's weight files in bytes, headers included."""
    return sum(shard.path.stat().st_size for shard in open_shards(directory))


def model_files(directory: Path) -> list[Path]:
    """The files of a model directory in a fixed order, hidden ones and training checkpoints left out."""
    found = []
    for path in sorted(directory.rglob("*")):
        parts = path.relative_to(directory).parts
        if any(part.startswith(".") or part.startswith("checkpoint-") for part in parts):
            continue
        if path.is_file():
            found.append(path)
    return found


@lru_cache(maxsize=4096)
def _digest(path: Path, size: int, modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def _indexed(index: Path) -> list[Path]:
    try:
        names = sorted(map(str, set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(f"{index}: is not an index of weight files ({error})") from None
    if not names:
        raise ModelError(f"{index}: is not an index of weight files (it names none)")
    for name in names:
        if Path(name).name != name:
            raise ModelError(f"{index}: names '{name}', which is outside the model's directory")
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
