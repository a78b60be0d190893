"""Formats: each stores, loads and counts the same model; settings of their own; the one that an artifact is in."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from pydantic import Field

import optimizer
from optimizer.artifact.write import write
from optimizer.errors import ArtifactError, ModelError, RecipeError
from optimizer.formats import FORMATS, format_of
from optimizer.formats.dense import Dense
from optimizer.formats.format import Context
from optimizer.manifest import read_manifest
from optimizer.model.checkpoint import open_checkpoint
from optimizer.model.shards import weight_bytes
from optimizer.recipe import parse
from optimizer.settings import Settings
from optimizer.stages.staging import Staged

STAGES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "half": {"prune": {"amount": 0.3}, "cast": {}},
    "codes": {"prune": {"amount": 0.3}, "quantize": {"step": 0.25}, "cast": {}},
}


WEIGHTS = [name for name, format in FORMATS.items() if format.holds_weights]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tiny.gpt2(), tmp_path_factory.mktemp("formats") / "model")


@torch.no_grad()
def answer(model: Any) -> torch.Tensor:
    logits: torch.Tensor = model(**tiny.INPUTS).logits
    return logits


@pytest.mark.parametrize("stages", STAGES.values(), ids=STAGES)
@pytest.mark.parametrize("build", [tiny.bert, tiny.gpt2, tiny.t5], ids=["bert", "gpt2", "t5"])
def test_a_materialised_model_is_the_dense_artifact(build: Callable[[], Any], stages: Any, tmp_path: Path) -> None:
    """Tied weights and all."""
    original = tiny.save(build(), tmp_path / "model")
    found = tiny.staged(original, stages).materialise()
    tiny.optimize(original, tmp_path / "artifact", stages)
    expected = optimizer.load(tmp_path / "artifact")
    assert type(found) is type(expected)
    assert not found.training
    ours, theirs = found.state_dict(), expected.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())


def test_a_materialised_model_is_float32_whatever_is_stored(original: Path) -> None:
    stages = {"bitsandbytes": {}, "cast": {"dtype": "bfloat16", "compute": "stored"}}
    model = tiny.staged(original, stages).materialise()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    expected = answer(optimizer.load(original))
    assert (answer(model) - expected).abs().max() < 0.1 * expected.abs().max()


@pytest.mark.parametrize("name", WEIGHTS)
def test_what_is_stored_is_counted(original: Path, tmp_path: Path, name: str) -> None:
    tiny.optimize(original, tmp_path / "artifact", {"prune": {"amount": 0.5}, "quantize": {"bits": 8}}, format=name)
    checkpoint = open_checkpoint(original)
    stored = FORMATS[name].stored(tmp_path / "artifact", checkpoint.places)
    pruned = sum(entry.values for entry in checkpoint.outline.entries.values() if entry.place.role == "linear")  # type: ignore[union-attr]
    assert stored.bytes == weight_bytes(tmp_path / "artifact")
    assert stored.values == checkpoint.parameters
    assert stored.zeros >= pruned // 2


def test_both_formats_hold_the_same_zeros_of_every_method(original: Path, tmp_path: Path) -> None:
    names = open_checkpoint(original).places
    for stages in ({"bitsandbytes": {}}, {"bitsandbytes": {"bits": 4}}, {"prune": {"amount": 0.3}}):
        found = []
        for name in WEIGHTS:
            tiny.optimize(original, tmp_path / name, stages, format=name)
            stored = FORMATS[name].stored(tmp_path / name, names)
            found.append((stored.values, stored.zeros))
        assert found[0] == found[1]


def test_threads_decide_no_byte(original: Path, tmp_path: Path) -> None:
    recipe = parse({"stages": {"quantize": {"step": 0.25}}, "format": "packed"})
    staged = recipe.staged(open_checkpoint(original), "model", lambda line: None)
    first, second = write(staged, tmp_path / "first", threads=1), write(staged, tmp_path / "second", threads=3)
    assert first == second


# which one it is


def test_a_directory_is_in_the_format_that_it_says(original: Path, tmp_path: Path) -> None:
    for name in WEIGHTS:
        tiny.optimize(original, tmp_path / name, {"cast": {}}, format=name)
        assert format_of(tmp_path / name) is FORMATS[name]
        (tmp_path / name / "manifest.json").unlink()
        assert format_of(tmp_path / name) is FORMATS[name]
        assert torch.equal(answer(optimizer.load(tmp_path / name)), answer(optimizer.load(tmp_path / "dense")))
    assert format_of(original) is FORMATS["dense"]
    (tmp_path / "dense" / "manifest.json").write_text('{"format": "of a stranger"}')
    assert format_of(tmp_path / "dense") is FORMATS["dense"]


def test_a_format_of_a_later_release_is_refused(original: Path, tmp_path: Path) -> None:
    tiny.optimize(original, tmp_path / "artifact", {})
    path = tmp_path / "artifact" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": "dnese"}))
    with pytest.raises(ArtifactError, match=r"artifact: unknown format 'dnese'; did you mean 'dense'\?$"):
        optimizer.load(tmp_path / "artifact")


# a format with settings of its own, which writes from a torch model


class Precision(Settings):
    """How an engine is to compute."""

    precision: str = "full"
    exclude: list[str] = Field(default_factory=list)


class Engine(Dense):
    """Stands for an engine that converts the whole model."""

    name = "engine"
    packages = ("torch",)
    how_to_load = "By the engine."
    settings = Precision

    def write(self, staged: Staged, directory: Path, context: Context) -> None:
        assert isinstance(context.settings, Precision)
        torch.save(staged.materialise().state_dict(), directory / f"{context.settings.precision}.engine")
        shutil.copyfile(staged.original.directory / "config.json", directory / "config.json")


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "engine", Engine())


@pytest.mark.usefixtures("engine")
def test_a_formats_own_settings_are_recorded_where_they_are_not_its_defaults(original: Path, tmp_path: Path) -> None:
    default, full, low = (
        parse({"format": "engine", "engine": engine}) for engine in ({}, {"precision": "full"}, {"precision": "low"})
    )
    assert default.values() == full.values()
    assert "engine" not in default.made_by()
    assert low.made_by()["engine"] == {"precision": "low"}
    assert parse(low.values()).values() == low.values()
    manifest = write(low.staged(open_checkpoint(original), "model", lambda line: None), tmp_path / "artifact")
    assert "low.engine" in manifest.files
    assert "model.safetensors" not in manifest.files
    assert read_manifest(tmp_path / "artifact").format == "engine"
    assert "By the engine." in (tmp_path / "artifact" / "README.md").read_text()


def test_what_is_no_directory_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(ModelError, match=rf"^{place}: is no directory; give that of an artifact, or of a model$"):
            optimizer.load(place)


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    ("values", "line"),
    [
        (
            {"format": "engine", "engine": {"precison": 1}},
            "engine: unknown key 'precison'; did you mean 'engine.precision'?",
        ),
        ({"format": "engine", "engine": {"precision": 8}}, "engine.precision: 8: input should be a valid string"),
        ({"format": "engine", "engine": "int8"}, "engine: 'int8': input should be a valid dictionary"),
        ({"engine": {"precision": "low"}}, "engine: the format dense has no settings of its own; remove it"),
        ({"format": "engin"}, "format: 'engin': unknown format; did you mean 'engine'?"),
    ],
)
def test_wrong_settings_of_a_format_are_refused(values: dict[str, Any], line: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse(values)
    assert str(caught.value) == line


def test_a_format_without_its_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Absent(Engine):
        packages = ("no_such_package",)

    monkeypatch.setitem(FORMATS, "engine", Absent())
    with pytest.raises(RecipeError, match=r"^format: needs the package no_such_package; run: pip install no_such_"):
        parse({"format": "engine"})
