"""`python -m optimizer.verify`: what is sound, a line for every fault of what is not, and the exit code."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from optimizer.manifest import describe_files, read_manifest, write_manifest
from optimizer.model.shards import SINGLE
from optimizer.verify import faults, main

QUERY = "bert.encoder.layer.0.attention.self.query.weight"
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    tiny.shipped(tiny.save(tiny.bert(), folder / "original"), folder / "packed", "compact")
    return folder / "packed"


@pytest.fixture
def artifact(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "artifact"))


def rewrite(directory: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(directory / SINGLE)
    change(tensors)
    save_file(tensors, directory / SINGLE, {"format": "pt"})


def agreeing(directory: Path, **changes: object) -> None:
    """Make the manifest agree with the files there."""
    manifest = read_manifest(directory)
    write_manifest(directory, type(manifest)(**vars(manifest) | {"files": describe_files(directory)} | changes))


@pytest.mark.parametrize("deep", [[], ["--deep"]])
def test_what_is_sound(artifact: Path, capsys: Capture, deep: list[str]) -> None:
    assert main([str(artifact), *deep]) == 0
    assert capsys.readouterr() == (f"{artifact}: is what was written\n", "")


@pytest.mark.parametrize(("recipe", "format"), [("fp16", "dense"), ("nf4", "packed"), ("balanced", "packed")])
def test_every_format_of_weights(tmp_path: Path, recipe: str, format: str) -> None:
    original = tiny.save(tiny.bert(), tmp_path / "model", shard_size="100KB")
    tiny.shipped(original, tmp_path / "artifact", recipe, f"format={format}")
    assert faults(tmp_path / "artifact", deep=True) == []


def test_a_line_for_every_fault_of_every_directory(artifact: Path, made: Path, tmp_path: Path, capsys: Capture) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors.pop("classifier.bias")
        tensors["more"] = torch.ones(2)
        tensors["renamed"] = tensors.pop(QUERY)
        tensors["bert.pooler.dense.bias"] += 2

    rewrite(artifact, spoil)
    tiny.change_config(artifact, num_hidden_layers=3)
    (artifact / "recipe.yaml").unlink()
    weights = artifact / SINGLE
    assert main([str(artifact), str(made), str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    again = "; make the artifact again"
    assert sorted(out.splitlines()) == sorted(
        [
            f"{artifact / 'config.json'}: is not what the manifest says{again}",
            f"{weights}: is not what the manifest says{again}",
            f"{artifact / 'recipe.yaml'}: is missing{again}",
            f"{weights}: more: is none of the tensors that were written{again}",
            f"{weights}: renamed: was written as {QUERY}{again}",
            f"{artifact}: classifier.bias: is missing from the weights{again}",
            f"{weights}: bert.pooler.dense.bias: holds other values than were written{again}",
            f"{made}: is what was written",
            f"{tmp_path}: is no artifact (it holds no manifest.json)",
        ]
    )
    assert err == ""


def test_weights_that_cannot_be_read_are_a_fault(artifact: Path) -> None:
    (artifact / SINGLE).write_bytes(b"nothing")
    first, second = faults(artifact, deep=True)
    assert first.endswith("is not what the manifest says; make the artifact again")
    assert second.startswith(f"{artifact / SINGLE}: cannot be read (")


def test_deep_finds_what_restores_to_something_else(artifact: Path) -> None:
    """Under a manifest whose files and payloads agree."""
    rewrite(artifact, lambda tensors: tensors.update({QUERY: tensors[QUERY.replace("query", "key")].clone()}))
    tensors = read_manifest(artifact).tensors
    assert tensors is not None
    stored = tensors[QUERY.replace("query", "key")]["stored_sha256"]
    agreeing(artifact, tensors=tensors | {QUERY: tensors[QUERY] | {"stored_sha256": stored}})
    assert faults(artifact) == []
    assert faults(artifact, deep=True) == [
        f"{artifact}: {QUERY}: restores to other values than were written; make the artifact again"
    ]


def test_deep_names_a_payload_that_cannot_be_restored(artifact: Path) -> None:
    def damage(tensors: dict[str, torch.Tensor]) -> None:
        tensors[QUERY][-1] ^= 1

    rewrite(artifact, damage)
    agreeing(artifact, tensors=None)  # of before there were lists of tensors
    assert faults(artifact) == []
    (line,) = faults(artifact, deep=True)
    assert line.startswith(f"{artifact / SINGLE}: {QUERY}: cannot be unpacked: ")


@pytest.mark.parametrize("text", ["", "{}", '{"format_version": 99}'])
def test_a_manifest_that_is_none(artifact: Path, text: str) -> None:
    (artifact / "manifest.json").write_text(text)
    (line,) = faults(artifact)
    assert line.startswith(f"{artifact / 'manifest.json'}: ")


def test_a_manifest_that_names_files_elsewhere(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("x")
    manifest = read_manifest(artifact)
    files = manifest.files | {"../outside": {"sha256": "0" * 64, "bytes": 1}}
    write_manifest(artifact, type(manifest)(**vars(manifest) | {"files": files}))
    assert faults(artifact) == [f"{artifact / '../outside'}: is missing; make the artifact again"]


def test_an_unknown_format_is_a_fault(artifact: Path) -> None:
    path = artifact / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": "pakced"}))
    assert faults(artifact, deep=True) == [f"{artifact}: unknown format 'pakced'; did you mean 'packed'?"]


def test_no_directory_is_a_wrong_command(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([])
    assert stopped.value.code == 2
    assert "python -m optimizer.verify" in capsys.readouterr().err


def test_the_command_as_a_process(artifact: Path) -> None:
    (artifact / "config.json").write_text("{}")
    command = [sys.executable, "-m", "optimizer.verify", str(artifact)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    line = f"{artifact / 'config.json'}: is not what the manifest says; make the artifact again\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, line, "")
