"""Unpacked artifacts: plain directories that hold what the packed ones do, complete or absent."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from optimizer.errors import ArtifactError
from optimizer.manifest import describe_files, read_manifest, verify, write_manifest
from optimizer.model.loading import load
from optimizer.packing.marker import METHOD
from optimizer.unpack import main, unpack

STEP: dict[str, Any] = {"prune": {"amount": 0.3}, "quantize": {"step": 0.25}, "cast": {}}
RECIPES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "half": {"cast": {}},
    "stored": {"cast": {"dtype": "bfloat16", "compute": "stored"}},
    "step": STEP,
    "int8": {"bitsandbytes": {}},
    "nf4": {"bitsandbytes": {"bits": 4}},
}
BALANCED: dict[str, Any] = {
    "prune": {"amount": 0.3},
    "quantize": {"bits": 8, "roles": ["embedding"]},
    "bitsandbytes": {},
    "cast": {"compute": "auto"},
}
QUERY = "bert.encoder.layer.0.attention.self.query.weight"

Make = Callable[..., Path]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tiny.save(tiny.bert(), tmp_path_factory.mktemp("unpack") / "tickets", shard_size="100KB")
    (directory / "tokenizer.json").write_text('{"words": "wörds"}')
    (directory / "README.md").write_text("the original's card")
    (directory / "1_Pooling").mkdir()
    (directory / "1_Pooling" / "config.json").write_text("{}")
    return directory


@pytest.fixture
def packed(original: Path, tmp_path: Path) -> Make:
    def make(stages: dict[str, Any], **keys: Any) -> Path:
        tiny.optimize(original, tmp_path / "packed", stages, format="packed", **keys)
        return tmp_path / "packed"

    return make


def contents(directory: Path) -> dict[str, bytes]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def answer(model: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(**tiny.INPUTS).logits
    return logits


# what it holds


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_weights_are_those_of_the_dense_artifact(original: Path, packed: Make, tmp_path: Path, recipe: str) -> None:
    """The very files, where nothing of a recipe depends on the format."""
    unpack(packed(RECIPES[recipe]), tmp_path / "unpacked")
    tiny.optimize(original, tmp_path / "dense", RECIPES[recipe])
    ours, theirs = contents(tmp_path / "unpacked"), contents(tmp_path / "dense")
    assert set(ours) == set(theirs)
    assert sum(name.endswith(".safetensors") for name in ours) > 2
    for name in set(theirs) - {"README.md"}:
        assert ours[name] == theirs[name], name
    assert "The format is `dense`" in ours["README.md"].decode()


@pytest.mark.parametrize("stages", [STEP, BALANCED, RECIPES["nf4"]], ids=["step", "balanced", "nf4"])
def test_it_loads_as_the_same_model_without_the_plugin(
    packed: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stages: dict[str, Any]
) -> None:
    from transformers.quantizers import auto

    directory = packed(stages)
    unpack(directory, tmp_path / "unpacked")
    model = load(directory)
    monkeypatch.delitem(auto.AUTO_QUANTIZATION_CONFIG_MAPPING, METHOD)
    found = load(tmp_path / "unpacked")
    expected = model.state_dict()
    assert list(found.state_dict()) == list(expected)
    for name, tensor in found.state_dict().items():
        assert (tensor.dtype, tensor.shape) == (expected[name].dtype, expected[name].shape), name
        assert torch.equal(tensor, expected[name]), name
    assert found.dtype == torch.float32
    assert torch.equal(answer(found), answer(model))


@pytest.mark.slow
def test_it_loads_in_a_process_that_never_imports_this_package(packed: Make, tmp_path: Path) -> None:
    found = {}
    for name, stages in {"step": STEP, "balanced": BALANCED}.items():
        directory = packed(stages)
        unpack(directory, tmp_path / name)
        found[name] = answer(load(directory)).tolist()
    script = (
        "import json, sys, torch\n"
        "from transformers import AutoModelForSequenceClassification as Model\n"
        "found = {}\n"
        "for name in ('step', 'balanced'):\n"
        "    model = Model.from_pretrained(name)\n"
        "    with torch.no_grad():\n"
        "        found[name] = model(input_ids=torch.tensor(json.loads(sys.argv[1]))).logits.tolist()\n"
        "assert 'optimizer' not in sys.modules\n"
        "print(json.dumps(found))\n"
    )
    arguments = [sys.executable, "-W", "error", "-c", script, json.dumps(tiny.INPUTS["input_ids"].tolist())]
    process = subprocess.run(arguments, check=True, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert json.loads(process.stdout) == found


def test_one_file_stays_one_file(tmp_path: Path) -> None:
    original = tiny.save(tiny.gpt2(), tmp_path / "model")
    tiny.optimize(original, tmp_path / "packed", {"cast": {}}, format="packed")
    unpack(tmp_path / "packed", tmp_path / "unpacked")
    assert (tmp_path / "unpacked" / "model.safetensors").exists()
    assert not (tmp_path / "unpacked" / "model.safetensors.index.json").exists()
    assert "quantization_config" not in json.loads((tmp_path / "unpacked" / "config.json").read_text())


def test_the_index_names_every_tensor_and_their_size(packed: Make, tmp_path: Path) -> None:
    unpack(packed(RECIPES["int8"]), tmp_path / "unpacked")
    index = json.loads((tmp_path / "unpacked" / "model.safetensors.index.json").read_text())
    stored = {path.name: load_file(path) for path in (tmp_path / "unpacked").glob("*.safetensors")}
    assert index["weight_map"] == {name: file for file, tensors in stored.items() for name in tensors}
    sizes = [tensor.nbytes for tensors in stored.values() for tensor in tensors.values()]
    assert index["metadata"]["total_size"] == sum(sizes)


def test_the_manifest_is_that_of_a_dense_artifact(packed: Make, tmp_path: Path) -> None:
    directory = packed(STEP)
    before, everything = read_manifest(directory), contents(directory)
    unpack(directory, tmp_path / "unpacked")
    manifest = verify(tmp_path / "unpacked")
    assert manifest.format == "dense"
    assert set(manifest.files) == set(before.files)
    for key in ("original", "original_fingerprint", "original_bytes", "parameters", "versions"):
        assert getattr(manifest, key) == getattr(before, key)
    assert contents(directory) == everything
    assert (tmp_path / "unpacked" / "README.original.md").read_text() == "the original's card"


def test_the_same_bytes_every_time(packed: Make, tmp_path: Path) -> None:
    directory = packed(BALANCED)
    unpack(directory, tmp_path / "first")
    unpack(directory, tmp_path / "deep" / "er" / "second")
    assert contents(tmp_path / "first") == contents(tmp_path / "deep" / "er" / "second")


def test_the_pickle_beside_it_comes_along(packed: Make, tmp_path: Path) -> None:
    unpack(packed(RECIPES["half"], also_pt=True), tmp_path / "unpacked")
    found = torch.load(tmp_path / "unpacked" / "model_optimized.pt", weights_only=True)
    tensors: dict[str, torch.Tensor] = {}
    for path in (tmp_path / "unpacked").glob("*.safetensors"):
        tensors |= load_file(path)
    assert set(found) == set(tensors)
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_a_card_that_is_gone_is_no_obstacle(packed: Make, tmp_path: Path) -> None:
    """No manifest lists it."""
    directory = packed(STEP)
    (directory / "README.md").unlink()
    unpack(directory, tmp_path / "unpacked")
    assert verify(tmp_path / "unpacked").format == "dense"


# what is refused


def refused(directory: Path, output: Path) -> str:
    before = sorted(output.parent.iterdir())
    with pytest.raises(ArtifactError) as caught:
        unpack(directory, output)
    assert sorted(output.parent.iterdir()) == before
    return str(caught.value)


def test_what_is_not_packed(original: Path, tmp_path: Path) -> None:
    tiny.optimize(original, tmp_path / "dense", {"cast": {}})
    output = tmp_path / "unpacked"
    assert refused(tmp_path / "dense", output) == f"{tmp_path / 'dense'}: is a dense artifact already; copy it as it is"
    assert refused(original, output) == f"{original}: is no artifact (it holds no manifest.json)"
    assert refused(tmp_path / "nowhere", output) == (
        f"{tmp_path / 'nowhere'}: is no artifact (it holds no manifest.json)"
    )


def test_a_place_that_is_taken(packed: Make, tmp_path: Path) -> None:
    directory = packed(STEP)
    place = tmp_path / "unpacked"
    place.mkdir()
    unpack(directory, place)  # empty folders and artifacts are replaced, as by the guide's script
    before = contents(place)
    unpack(directory, place)
    assert contents(place) == before
    shutil.rmtree(place)
    place.mkdir()
    (place / "thesis.txt").write_text("years of work")
    assert refused(directory, place) == f"{place}: exists and is no artifact of this program; write another path"
    assert contents(place) == {"thesis.txt": b"years of work"}
    assert refused(directory, directory) == f"{directory}: is the packed artifact itself; write another path"
    (tmp_path / "file").write_text("")
    output = tmp_path / "file" / "unpacked"
    with pytest.raises(ArtifactError) as caught:
        unpack(directory, output)
    assert str(caught.value) == f"{output}: cannot be written (Not a directory)"


def test_what_the_manifest_does_not_know(packed: Make, tmp_path: Path) -> None:
    directory = packed(STEP)
    shard = min(directory.glob("*.safetensors"))
    raw = bytearray(shard.read_bytes())
    raw[-1] ^= 1
    shard.write_bytes(raw)
    assert refused(directory, tmp_path / "unpacked") == (
        f"{shard}: is not what the manifest says; make the artifact again"
    )
    shard.unlink()
    assert refused(directory, tmp_path / "unpacked") == f"{shard}: is missing; make the artifact again"


def test_a_damaged_payload_is_named_and_nothing_is_left(packed: Make, tmp_path: Path) -> None:
    """Under a manifest that was made to agree."""
    directory = packed(STEP)
    (shard,) = (path for path in directory.glob("*.safetensors") if QUERY in load_file(path))
    tensors = load_file(shard)
    tensors[QUERY][-1] ^= 1
    save_file(tensors, shard, {"format": "pt"})
    manifest = read_manifest(directory)
    write_manifest(directory, type(manifest)(**vars(manifest) | {"files": describe_files(directory)}))
    said = refused(directory, tmp_path / "unpacked")
    assert said.startswith(f"{shard}: {QUERY}: cannot be unpacked: ")
    assert "\n" not in said


def test_what_a_broken_off_run_left_is_replaced(packed: Make, tmp_path: Path) -> None:
    directory = packed(STEP)
    partial = tmp_path / "unpacked.partial"
    partial.mkdir()
    (partial / "model.safetensors").write_bytes(b"half of it")
    unpack(directory, tmp_path / "unpacked")
    assert not partial.exists()
    verify(tmp_path / "unpacked")


# the command


def test_the_command(packed: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = packed(STEP)
    assert main([str(directory), str(tmp_path / "unpacked")]) == 0
    assert capsys.readouterr() == ("", "")
    verify(tmp_path / "unpacked")
    assert main([str(directory), str(directory)]) == 2
    assert capsys.readouterr() == ("", f"unpack: {directory}: is the packed artifact itself; write another path\n")
    for arguments in ([], [str(directory)], [str(directory), "a", "b"], ["--other"]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2
    assert "python -m optimizer.unpack" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_as_a_process(packed: Make, tmp_path: Path) -> None:
    directory = packed(STEP)
    command = [sys.executable, "-m", "optimizer.unpack", str(directory), str(tmp_path / "unpacked")]
    assert subprocess.run(command, check=False).returncode == 0
    expected = contents(tmp_path / "unpacked")
    again = subprocess.run([*command[:-1], str(directory)], check=False, capture_output=True, text=True)
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr == f"unpack: {directory}: is the packed artifact itself; write another path\n"
    shutil.rmtree(tmp_path / "unpacked")
    unpack(directory, tmp_path / "unpacked")
    assert contents(tmp_path / "unpacked") == expected
