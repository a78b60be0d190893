"""Artifacts: complete or absent, the same bytes every time, loaded by transformers alone."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file

from optimizer.manifest import verify
from optimizer.model.directory import fingerprint
from optimizer.model.loading import load
from optimizer.recipe import parse

HALF: dict[str, Any] = {"cast": {}}
PRUNED: dict[str, Any] = {"prune": {"amount": 0.3, "scope": "model"}, "cast": {}}
BALANCED: dict[str, Any] = {
    "prune": {"amount": 0.3},
    "threshold": {"value": 1e-3},
    "bitsandbytes": {},
    "cast": {"compute": "stored"},
}
RECIPES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "half": HALF,
    "int8": {"bitsandbytes": {}},
    "nf4": {"bitsandbytes": {"bits": 4}},
    "balanced": BALANCED,
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards, and beside them everything that a published model brings along."""
    directory = tiny.save(tiny.bert(), tmp_path_factory.mktemp("write") / "tickets", shard_size="100KB")
    (directory / "tokenizer.json").write_text('{"words": "wörds"}')
    (directory / "LICENSE").write_text("free\r\nfor all")
    (directory / "README.md").write_text("the original's card")
    (directory / "1_Pooling").mkdir()
    (directory / "1_Pooling" / "config.json").write_text("{}")
    (directory / "pytorch_model.bin").write_bytes(b"an older copy of the weights")
    (directory / "training_args.bin").write_bytes(b"a pickle")
    (directory / ".gitattributes").write_text("hidden")
    (directory / "checkpoint-10").mkdir()
    (directory / "checkpoint-10" / "optimizer.pt").write_bytes(b"training")
    tiny.change_config(directory, _name_or_path=str(directory), torch_dtype="float32")
    return directory


def contents(directory: Path) -> dict[str, bytes]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def config(directory: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((directory / "config.json").read_text())
    return values


# what is in it


def test_the_small_files_are_copied_and_the_others_are_not(original: Path, tmp_path: Path) -> None:
    tiny.optimize(original, tmp_path / "artifact", HALF)
    found = contents(tmp_path / "artifact")
    shards = {path.name for path in original.glob("*.safetensors")}
    assert len(shards) > 2
    assert set(found) == shards | {
        "1_Pooling/config.json",
        "LICENSE",
        "README.md",
        "README.original.md",
        "config.json",
        "manifest.json",
        "model.safetensors.index.json",
        "recipe.yaml",
        "tokenizer.json",
    }
    for name in ("LICENSE", "tokenizer.json", "1_Pooling/config.json"):
        assert found[name] == (original / name).read_bytes()
    assert found["README.original.md"] == b"the original's card"


def test_a_large_file_is_left_out_and_the_log_says_so(
    original: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("optimizer.artifact.write._LARGEST_COPY", 5)
    tiny.optimize(original, tmp_path / "artifact", HALF)
    assert not (tmp_path / "artifact" / "LICENSE").exists()
    assert any("LICENSE is left out" in line for line in caplog.messages)


def test_exports_of_the_original_are_left_out_and_other_weights_stay(
    original: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = shutil.copytree(original, tmp_path / "tickets")
    exports = "onnx/model.onnx", "onnx/config.json", "openvino/openvino_model.xml", "model.onnx_data"
    others = "2_Dense/model.safetensors", "2_Dense/pytorch_model.bin", "vocab.xml"
    for name in (*exports, *others, "openvino_model.xml", "openvino_model.bin"):
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text("x")
    caplog.set_level("INFO", "optimizer")
    tiny.optimize(copy, tmp_path / "artifact", HALF)
    tiny.optimize(original, tmp_path / "without", HALF)
    assert set(contents(tmp_path / "artifact")) == {*contents(tmp_path / "without"), *others}
    for name in exports:
        assert f"{name} is left out: it is another form of the original" in caplog.messages


@pytest.mark.parametrize("fits", [True, False])
def test_weights_in_a_subfolder_stay_with_their_index(
    original: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, fits: bool
) -> None:
    copy = shutil.copytree(original, tmp_path / "tickets")
    (copy / "2_Dense").mkdir()
    shards = "2_Dense/model-00001-of-00002.safetensors", "2_Dense/model-00002-of-00002.safetensors"
    for number, name in enumerate(shards):
        (copy / name).write_bytes(bytes(100_000 * number))
    index = "2_Dense/model.safetensors.index.json"
    (copy / index).write_text(json.dumps({"weight_map": {name: name.rpartition("/")[2] for name in shards}}))
    if not fits:
        monkeypatch.setattr("optimizer.artifact.write._LARGEST_COPY", 99_999)
    caplog.set_level("INFO", "optimizer")
    tiny.optimize(copy, tmp_path / "artifact", HALF)
    tiny.optimize(original, tmp_path / "without", HALF)
    added = set(contents(tmp_path / "artifact")) - set(contents(tmp_path / "without"))
    assert added == ({*shards, index} if fits else set())
    assert fits or f"{index} is left out: it is of no use without a file that is too large" in caplog.messages


def test_the_shards_and_the_index_are_the_originals(original: Path, tmp_path: Path) -> None:
    tiny.optimize(original, tmp_path / "artifact", BALANCED)
    before = json.loads((original / "model.safetensors.index.json").read_text())["weight_map"]
    index = json.loads((tmp_path / "artifact" / "model.safetensors.index.json").read_text())
    assert before.items() <= index["weight_map"].items()
    stored = {path.name: load_file(path) for path in (tmp_path / "artifact").glob("*.safetensors")}
    assert index["weight_map"] == {name: file for file, tensors in stored.items() for name in tensors}
    sizes = [tensor.nbytes for tensors in stored.values() for tensor in tensors.values()]
    assert index["metadata"]["total_size"] == sum(sizes)


def test_one_file_stays_one_file(tmp_path: Path) -> None:
    tiny.optimize(tiny.save(tiny.gpt2(), tmp_path / "model"), tmp_path / "artifact", HALF)
    assert (tmp_path / "artifact" / "model.safetensors").exists()
    assert not (tmp_path / "artifact" / "model.safetensors.index.json").exists()


def test_legacy_pickles_become_safetensors_and_tied_weights_are_stored_once(tmp_path: Path) -> None:
    model = tiny.gpt2().eval()
    original = tiny.save_legacy(model, tmp_path / "model", shards=2)
    tiny.optimize(original, tmp_path / "artifact", {}, also_pt=True)
    found = contents(tmp_path / "artifact")
    assert {name for name in found if "safetensors" in name or "bin" in name} == {
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    }
    assert "lm_head.weight" not in json.loads(found["model.safetensors.index.json"])["weight_map"]
    with torch.no_grad():
        assert torch.equal(load(tmp_path / "artifact")(**tiny.INPUTS).logits, model(**tiny.INPUTS).logits)


def test_the_config_is_the_originals_but_for_what_the_stages_change(original: Path, tmp_path: Path) -> None:
    tiny.optimize(original, tmp_path / "nothing", {})
    before = config(original)
    assert config(tmp_path / "nothing") == {key: value for key, value in before.items() if key != "_name_or_path"}
    tiny.optimize(original, tmp_path / "half", HALF)
    assert config(tmp_path / "half") == {
        key: value for key, value in before.items() if key not in ("_name_or_path", "torch_dtype")
    } | {"dtype": "float32"}


def test_without_stages_the_weights_are_the_originals(original: Path, tmp_path: Path) -> None:
    tiny.optimize(original, tmp_path / "artifact", {})
    for path in original.glob("*.safetensors"):
        expected, found = load_file(path), load_file(tmp_path / "artifact" / path.name)
        assert set(found) == set(expected)
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_manifest_says_where_it_comes_from(original: Path, tmp_path: Path) -> None:
    manifest = tiny.optimize(original, tmp_path / "artifact", HALF)
    assert verify(tmp_path / "artifact") == manifest
    assert manifest.original == "tickets"
    assert manifest.original_fingerprint == fingerprint(original)
    assert manifest.original_bytes == sum(path.stat().st_size for path in original.glob("*.safetensors"))
    assert manifest.parameters == sum(parameter.numel() for parameter in tiny.bert().parameters())
    assert set(manifest.files) == set(contents(tmp_path / "artifact")) - {"manifest.json", "README.md"}


def test_the_recipe_in_it_makes_it_again(original: Path, tmp_path: Path) -> None:
    from omegaconf import OmegaConf

    manifest = tiny.optimize(original, tmp_path / "artifact", BALANCED)
    values: Any = OmegaConf.to_container(OmegaConf.load(tmp_path / "artifact" / "recipe.yaml"))
    again = tiny.optimize(original, tmp_path / "again", values["stages"])
    assert parse(values).name == "tiny"
    assert again.files == manifest.files


def test_an_artifact_may_be_the_original_of_another(original: Path, tmp_path: Path) -> None:
    tiny.optimize(original, tmp_path / "first", HALF)
    manifest = tiny.optimize(tmp_path / "first", tmp_path / "second", PRUNED)
    assert manifest.original == "first"
    assert verify(tmp_path / "second") == manifest


@pytest.mark.parametrize("kind", ["half", "int8", "balanced"])
def test_the_pickle_beside_it_is_plain_and_equal(original: Path, tmp_path: Path, kind: str) -> None:
    tiny.optimize(original, tmp_path / "artifact", RECIPES[kind], also_pt=True)
    found = torch.load(tmp_path / "artifact" / "model_optimized.pt", weights_only=True)
    expected: dict[str, torch.Tensor] = {}
    for path in (tmp_path / "artifact").glob("*.safetensors"):
        expected |= load_file(path)
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_pickle_of_a_packed_artifact_is_that_of_the_dense_one(original: Path, tmp_path: Path) -> None:
    stages = {"quantize": {"step": 0.25}, "cast": {}}
    for name in ("dense", "packed"):
        tiny.optimize(original, tmp_path / name, stages, also_pt=True, format=name)
    dense, packed = ((tmp_path / name / "model_optimized.pt").read_bytes() for name in ("dense", "packed"))
    assert dense == packed
    assert not list((tmp_path / "packed").glob("model_optimized.pt.*"))


def test_the_pickle_holds_shards_of_any_name(tmp_path: Path) -> None:
    original = tiny.save(tiny.bert(), tmp_path / "model")
    (original / "model.safetensors").rename(original / "weights-1.safetensors")
    weight_map = dict.fromkeys(tiny.bert().state_dict(), "weights-1.safetensors")
    (original / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    tiny.optimize(original, tmp_path / "artifact", HALF, also_pt=True)
    assert set(torch.load(tmp_path / "artifact" / "model_optimized.pt", weights_only=True)) == set(weight_map)


# the same bytes


@pytest.mark.parametrize("stages", [PRUNED, BALANCED, RECIPES["nf4"]], ids=["pruned", "balanced", "nf4"])
def test_the_same_bytes_from_anywhere_to_anywhere(original: Path, tmp_path: Path, stages: dict[str, Any]) -> None:
    first = tiny.optimize(original, tmp_path / "first", stages, also_pt=True)
    copy = tmp_path / "a" / "copy" / original.name
    shutil.copytree(original, copy)
    second = tiny.optimize(copy, tmp_path / "deep" / "er" / "second", stages, also_pt=True)
    assert first == second
    one, other = contents(tmp_path / "first"), contents(tmp_path / "deep" / "er" / "second")
    assert one == other
    for name, content in one.items():
        assert str(tmp_path).encode() not in content, name
        assert str(original.parent).encode() not in content, name


# loading


SCRIPT = """
import json, sys
import torch
from transformers import AutoModelForSequenceClassification

job = json.loads(sys.argv[1])
found = {}
for name, directory in job["artifacts"].items():
    model, info = AutoModelForSequenceClassification.from_pretrained(directory, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"], (name, info)
    with torch.no_grad():
        logits = model.eval()(input_ids=torch.tensor(job["input_ids"])).logits
    types = sorted({type(module).__name__ for module in model.modules() if "Linear" in type(module).__name__})
    found[name] = {"dtype": str(model.dtype), "logits": logits.tolist(), "linear": types}
assert "optimizer" not in sys.modules
json.dump(found, open(job["answer"], "w"))
"""


def test_transformers_alone_loads_every_kind(original: Path, tmp_path: Path) -> None:
    """In a process that never imports this package."""
    for name, stages in RECIPES.items():
        tiny.optimize(original, tmp_path / name, stages)
    job = {
        "artifacts": {name: str(tmp_path / name) for name in RECIPES},
        "input_ids": tiny.INPUTS["input_ids"].tolist(),
        "answer": str(tmp_path / "answer.json"),
    }
    subprocess.run([sys.executable, "-W", "error", "-c", SCRIPT, json.dumps(job)], check=True, cwd=tmp_path)
    found = json.loads((tmp_path / "answer.json").read_text())
    with torch.no_grad():
        expected = load(original)(**tiny.INPUTS).logits
    logits = {name: torch.tensor(answer["logits"]) for name, answer in found.items()}
    assert torch.equal(logits["nothing"], expected)
    assert torch.allclose(logits["half"], expected, atol=0.02)
    assert not torch.equal(logits["half"], expected)
    assert {name: answer["dtype"] for name, answer in found.items()} == dict.fromkeys(RECIPES, "torch.float32") | {
        "balanced": "torch.float16"
    }
    for name, kind in {"int8": "Linear8bitLt", "nf4": "Linear4bit", "balanced": "Linear8bitLt"}.items():
        assert found[name]["linear"] == ["Linear", kind]
        with torch.no_grad():
            assert torch.equal(logits[name], load(tmp_path / name)(**tiny.INPUTS).logits.float())
