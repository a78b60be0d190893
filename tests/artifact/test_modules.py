"""Directories of sentence-transformers: the modules beside the model stay, are optimized, and count."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from command_line import rows
from safetensors.torch import load_file, save_file
from transformers import AutoModel

import optimizer as package
from optimizer.errors import ModelError
from optimizer.evaluation import size
from optimizer.model.checkpoint import open_checkpoint
from optimizer.model.shards import weight_bytes
from optimizer.recipe import parse
from optimizer.runs.estimate import artifact_bytes

TYPES = {"": "Transformer", "0_Transformer": "Transformer", "1_Pooling": "Pooling", "2_Dense": "Dense"}
DENSE = {"in_features": 64, "out_features": 32, "bias": True, "activation_function": "torch.nn.modules.activation.Tanh"}
STAGES: dict[str, Any] = {"prune": {"amount": 0.5}, "quantize": {"bits": 4, "roles": ["linear"]}}


def build(directory: Path, folder: str = "", *, legacy: bool = False) -> Path:
    """A model with a pooling and a dense layer; `folder` is where its transformers model lies."""
    tiny.save(tiny.bert().base_model, directory / folder)
    (directory / folder / "sentence_bert_config.json").write_text('{"max_seq_length": 16}')
    (directory / "1_Pooling").mkdir()
    (directory / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    (directory / "2_Dense").mkdir()
    (directory / "2_Dense" / "config.json").write_text(json.dumps(DENSE))
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "linear.weight": torch.randn(32, 64, generator=generator),
        "linear.bias": torch.randn(32, generator=generator),
    }
    if legacy:
        torch.save(tensors, directory / "2_Dense" / "pytorch_model.bin")
    else:
        save_file(tensors, directory / "2_Dense" / "model.safetensors")
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{TYPES[path]}"}
        for number, path in enumerate((folder, "1_Pooling", "2_Dense"))
    ]
    (directory / "modules.json").write_text(json.dumps(modules))
    (directory / "README.md").write_text("the original's card")
    return directory


def dense(artifact: Path) -> dict[str, torch.Tensor]:
    return load_file(artifact / "2_Dense" / "model.safetensors")


@pytest.mark.parametrize("format_", ["dense", "packed"])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_dense_layer_is_optimized_and_stays_readable_for_its_library(
    tmp_path: Path, format_: str, legacy: bool
) -> None:
    original = build(tmp_path / "embedder", legacy=legacy)
    (original / "2_Dense" / "rust_model.ot").write_text("another form of the same weights")
    tiny.optimize(original, tmp_path / "artifact", STAGES, format=format_)
    found = dense(tmp_path / "artifact")
    weight, before = found["linear.weight"], dense(build(tmp_path / "again"))
    assert (weight.dtype, weight.shape) == (torch.float32, (32, 64))
    assert (weight == 0).sum() >= weight.numel() // 2
    assert all(len(row.unique()) <= 15 for row in weight)
    assert torch.equal(found["linear.bias"], before["linear.bias"])
    names = {path.name for path in (tmp_path / "artifact" / "2_Dense").iterdir()}
    assert names == {"config.json", "model.safetensors"}
    for name in ("modules.json", "1_Pooling/config.json", "2_Dense/config.json"):
        assert (tmp_path / "artifact" / name).read_bytes() == (original / name).read_bytes()
    manifest = json.loads((tmp_path / "artifact" / "manifest.json").read_text())
    assert "2_Dense/model.safetensors" in manifest["files"]


def test_the_size_is_that_of_all_modules(tmp_path: Path) -> None:
    original = build(tmp_path / "embedder")
    tiny.optimize(original, tmp_path / "artifact", {"cast": {}})
    for directory in (original, tmp_path / "artifact"):
        files = (directory / "model.safetensors", directory / "2_Dense" / "model.safetensors")
        assert weight_bytes(directory) == sum(path.stat().st_size for path in files)
    checkpoint = open_checkpoint(original)
    figures = size.measure(checkpoint, tmp_path / "artifact")
    assert figures["original_bytes"] == weight_bytes(original)
    assert figures["artifact_bytes"] == weight_bytes(tmp_path / "artifact")
    tensors = [*load_file(original / "model.safetensors").values(), *dense(original).values()]
    assert figures["parameters"] == checkpoint.parameters == sum(map(torch.Tensor.numel, tensors))
    assert dense(tmp_path / "artifact")["linear.weight"].dtype == torch.float16


def test_the_space_that_a_plan_says_counts_on_no_packing_of_theirs(tmp_path: Path) -> None:
    original = build(tmp_path / "embedder")
    save_file({"linear.weight": torch.randn(1024, 1024)}, original / "2_Dense" / "model.safetensors")
    tiny.optimize(original, tmp_path / "artifact", STAGES, format="packed")
    recipe = parse({"name": "tiny", "stages": STAGES, "format": "packed"})
    taken = sum(path.stat().st_size for path in (tmp_path / "artifact").rglob("*") if path.is_file())
    assert taken <= artifact_bytes(open_checkpoint(original), recipe) < 1.5 * taken


def test_patterns_name_a_module_by_its_folder(tmp_path: Path) -> None:
    original = build(tmp_path / "embedder")
    tiny.optimize(original, tmp_path / "artifact", {"prune": {"amount": 0.5, "only": ["2_Dense/*"]}})
    assert (dense(tmp_path / "artifact")["linear.weight"] == 0).sum() == 32 * 64 // 2
    before, after = (load_file(path / "model.safetensors") for path in (original, tmp_path / "artifact"))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_what_bitsandbytes_cannot_hold_of_them_is_told(tmp_path: Path) -> None:
    original = build(tmp_path / "embedder")
    alone = parse({"stages": {"bitsandbytes": {}}}).remainder(open_checkpoint(original).outline)
    assert alone is not None
    (line,) = (str(each) for each in alone.weights if each.module == "2_Dense/linear" and len(each.shape) == 2)
    assert line == "2_Dense/linear, 32 x 64, 8192 bytes: transformers quantizes no layer of its kind"
    tiny.optimize(original, tmp_path / "artifact", {"bitsandbytes": {}})
    assert torch.equal(dense(tmp_path / "artifact")["linear.weight"], dense(original)["linear.weight"])


def test_the_older_layout_becomes_the_one_that_transformers_loads(
    optimizer: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    original = build(tmp_path / "embedder", "0_Transformer")
    (original / "0_Transformer" / "README.md").write_text("another card")
    (original / "0_Transformer" / "onnx").mkdir()
    (original / "0_Transformer" / "onnx" / "model.onnx").write_text("an export")
    settings = "model=local", f"model.path={original}", "evaluation.repetitions=0", "threads=1"
    code, _, said = optimizer("recipe=compact", *settings)
    assert code == 0, said
    (row,) = rows(tmp_path / "outputs")
    assert 0.5 < float(row["cosine_similarity"]) <= 1
    assert int(row["original_bytes"]) == weight_bytes(original)
    artifact = tmp_path / "outputs" / row["artifact"]
    modules = json.loads((artifact / "modules.json").read_text())
    assert [module["path"] for module in modules] == ["", "1_Pooling", "2_Dense"]
    for name in ("sentence_bert_config.json", "1_Pooling/config.json", "2_Dense/model.safetensors"):
        assert (artifact / name).exists()
    assert (artifact / "README.original.md").read_text() == "the original's card"
    assert (artifact / "0_Transformer" / "README.md").read_text() == "another card"
    assert [path.name for path in (artifact / "0_Transformer").iterdir()] == ["README.md"]
    log = (artifact.parent / "run.log").read_text()
    assert "0_Transformer/onnx/model.onnx is left out: it is another form of the original" in log
    found = AutoModel.from_pretrained(artifact)
    expected = AutoModel.from_pretrained(original / "0_Transformer")
    assert type(found) is type(expected)
    assert type(package.load(artifact)) is type(expected)
    dense_bytes = (artifact / "2_Dense" / "model.safetensors").stat().st_size
    assert int(row["artifact_bytes"]) == dense_bytes + (artifact / "model.safetensors").stat().st_size


def test_an_engines_artifact_keeps_them_too(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    original = build(tmp_path / "embedder")
    tiny.optimize(original, tmp_path / "artifact", STAGES, format="openvino", engine={"precision": "float32"})
    assert (dense(tmp_path / "artifact")["linear.weight"] == 0).sum() >= 32 * 64 // 2
    figures = size.measure(open_checkpoint(original), tmp_path / "artifact")
    graph = (tmp_path / "artifact" / "openvino_model.bin").stat().st_size
    xml = (tmp_path / "artifact" / "openvino_model.xml").stat().st_size
    beside = (tmp_path / "artifact" / "2_Dense" / "model.safetensors").stat().st_size
    assert figures["artifact_bytes"] == graph + xml + beside


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{", "is no list of modules ("),
        ('{"path": ""}', "is no list of modules ("),
        (
            '[{"path": "../elsewhere", "type": "a.Dense"}]',
            "names '../elsewhere', which is outside the model's directory",
        ),
    ],
)
def test_a_list_of_modules_that_is_none_is_refused(tmp_path: Path, text: str, line: str) -> None:
    original = build(tmp_path / "embedder")
    (original / "modules.json").write_text(text)
    with pytest.raises(ModelError) as caught:
        open_checkpoint(original)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_module_that_changes_is_another_original(tmp_path: Path) -> None:
    first = open_checkpoint(build(tmp_path / "embedder", "0_Transformer"))
    other = shutil.copytree(tmp_path / "embedder", tmp_path / "other")
    save_file({"linear.weight": torch.zeros(32, 64)}, other / "2_Dense" / "model.safetensors")
    assert open_checkpoint(other).fingerprint != first.fingerprint
