"""Single bytes of packed artifacts changed, ten thousand in all: what loads then is what was written, or nothing."""

import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest
import tiny
import torch
import transformers
from transformers import BertForSequenceClassification

import optimizer
from optimizer.errors import OptimizerError

ALL = 10_000
EVERY = 3
"""One in so many changes is in a JSON file or a header."""
RECIPES = ("compact", "balanced", "nf4")
DIGITS, LETTERS = b"0123456789", b"abcdefghijklmnopqrstuvwxyz"
pretrained: Callable[[Path], Any] = BertForSequenceClassification.from_pretrained


@dataclass(frozen=True)
class Change:
    """A byte of a file that becomes another."""

    path: Path
    place: int
    byte: int


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A tiny classifier in two files, by one of the recipes."""
    folder = tmp_path_factory.mktemp("bytes")
    size = {"hidden_size": 64, "num_hidden_layers": 1, "vocab_size": 96}
    model = tiny.bert(**size)
    with torch.no_grad():
        for parameter in model.parameters():  # biases are zeros, of which one is as good as another
            parameter += 0.1 * torch.randn_like(parameter)
    original = tiny.save(model, folder / "original", shard_size="100KB")

    def make(recipe: str, output_format: str) -> Path:
        place = folder / f"{recipe}-{output_format}"
        if not place.exists():
            tiny.shipped(original, place, recipe, f"format={output_format}")
        assert len(list(place.glob("*.safetensors"))) > 1
        return place

    return make


@pytest.fixture
def quiet() -> Iterator[None]:
    """Warnings, errors elsewhere, would pass for refusals here."""
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    transformers.logging.set_verbosity(verbosity)


def changes(directory: Path, count: int) -> Iterator[Change]:
    """A third of them in JSON files and headers, half of which put a digit for a digit, a letter for a letter."""
    random = Random(directory.name)
    texts, values = [], []
    for path in sorted(directory.iterdir()):
        size = path.stat().st_size
        if path.suffix == ".json":
            texts.append((path, range(size)))
        elif path.suffix == ".safetensors":
            header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
            texts.append((path, range(header)))
            values.append((path, range(header, size)))
    for number in range(count):
        is_text = number % EVERY == 0
        path, places = random.choice(texts if is_text else values)
        place = random.choice(places)
        old = path.read_bytes()[place]
        kinds = [kind for kind in (DIGITS, LETTERS) if old in kind] if is_text and random.random() < 0.5 else []
        yield Change(path, place, random.choice([byte for byte in (kinds or [range(256)])[0] if byte != old]))


def state(model: Any) -> dict[str, torch.Tensor]:
    """All that it holds, and what it answers."""
    with torch.no_grad():
        return model.state_dict() | {"answer": model(**tiny.INPUTS).logits}


def loaded(load: Callable[[Path], Any], directory: Path) -> dict[str, torch.Tensor] | Exception:
    try:
        return state(load(directory))
    except Exception as error:
        return error


def refusals(directory: Path, scratch: Path, count: int, loads: list[Callable[[Path], Any]]) -> int:
    """How many of so many changes are refused by the ways in, which take turns; what is not is what was written."""
    copy = Path(shutil.copytree(directory, scratch / "artifact"))
    expected = state(optimizer.load(copy))
    refused = 0
    for number, change in enumerate(changes(directory, count)):
        path, raw = copy / change.path.name, bytearray(change.path.read_bytes())
        raw[change.place] = change.byte
        path.unlink()  # a model may still be mapped to the file
        path.write_bytes(raw)
        load = loads[number // EVERY % len(loads)]
        found = loaded(load, copy)
        if isinstance(found, Exception):
            refused += 1
            ours = isinstance(found, OptimizerError) and "\n" not in str(found)
            assert ours or load is pretrained, (change, found)  # transformers reads config.json first
        else:
            assert list(found) == list(expected), change
            for name, tensor in expected.items():
                assert found[name].dtype == tensor.dtype, (change, name)
                assert torch.equal(found[name], tensor), (change, name)
        path.unlink()
        shutil.copyfile(change.path, path)
    assert torch.equal(state(optimizer.load(copy))["answer"], expected["answer"])
    return refused


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("count", [90, pytest.param(-(-ALL // len(RECIPES)), marks=pytest.mark.slow)])
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_packed_artifact(artifact: Callable[..., Path], tmp_path: Path, recipe: str, count: int) -> None:
    """Most bytes say something; those of the manifest that only tell its history do not."""
    assert refusals(artifact(recipe, "packed"), tmp_path, count, [optimizer.load, pretrained]) > 0.7 * count


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("count", [60, pytest.param(900, marks=pytest.mark.slow)])
@pytest.mark.parametrize("recipe", ["fp16", "int8", "nf4"])
def test_a_dense_artifact_by_load(artifact: Callable[..., Path], tmp_path: Path, recipe: str, count: int) -> None:
    """Plain from_pretrained, without this package, cannot tell."""
    assert refusals(artifact(recipe, "dense"), tmp_path, count, [optimizer.load]) > 0.7 * count
