"""Damaged, foreign and dangerous model directories: each is refused in one line that says what to do."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from transformers import PreTrainedModel

from optimizer.errors import ModelError
from optimizer.model.checkpoint import open_checkpoint


@pytest.fixture(scope="module")
def bert() -> PreTrainedModel:
    return tiny.bert()


@pytest.fixture
def original(bert: PreTrainedModel, tmp_path: Path) -> Path:
    return tiny.save(bert, tmp_path / "model")


def refusal(directory: Path) -> str:
    with pytest.raises(ModelError) as caught:
        open_checkpoint(directory)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_directory_of_a_model(tmp_path: Path) -> None:
    assert refusal(tmp_path) == (f"{tmp_path}: holds no config.json; give the directory that save_pretrained wrote")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null"])
def test_a_config_that_is_none(original: Path, text: str) -> None:
    (original / "config.json").write_text(text)
    assert refusal(original).startswith(f"{original / 'config.json'}: ")


def test_no_weights(original: Path) -> None:
    (original / "model.safetensors").unlink()
    assert refusal(original).startswith(f"{original}: holds no weights; expected model.safetensors, ")


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, -1])
def test_a_truncated_safetensors_file(original: Path, keep: float) -> None:
    path = original / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    line = refusal(original)
    assert line.startswith(f"{path}: cannot be read (")
    assert line.endswith(f"{path.stat().st_size} bytes); copy or download it again")


def test_a_pointer_instead_of_the_weights(original: Path) -> None:
    (original / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert "cannot be read" in refusal(original)


def test_a_missing_shard(bert: PreTrainedModel, tmp_path: Path) -> None:
    directory = tiny.save(bert, tmp_path / "model", shard_size="100KB")
    lost = sorted(directory.glob("*.safetensors"))[1]
    lost.unlink()
    assert refusal(directory) == (
        f"{directory / 'model.safetensors.index.json'}: names {lost.name}, which is missing; download the model again"
    )


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/hosts", "deeper/model.safetensors"])
def test_an_index_that_leaves_the_directory(original: Path, name: str) -> None:
    shutil.move(original / "model.safetensors", original.parent / "secret.safetensors")
    (original / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    assert refusal(original).endswith(f"names '{name}', which is outside the model's directory")


def test_an_index_that_names_no_file(original: Path) -> None:
    (original / "model.safetensors").unlink()
    (original / "model.safetensors.index.json").write_text('{"weight_map": {"a": 5}}')
    assert refusal(original).endswith("names 5, which is missing; download the model again")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": 1}'])
def test_an_index_that_is_none(original: Path, text: str) -> None:
    (original / "model.safetensors").unlink()
    (original / "model.safetensors.index.json").write_text(text)
    assert "is not an index of weight files" in refusal(original)


class Unsafe:
    """A pickle that runs code when it is read."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_a_pickle_that_runs_code_is_refused(bert: PreTrainedModel, tmp_path: Path, zipped: bool) -> None:
    directory = tiny.save_legacy(bert, tmp_path / "model")
    marker = tmp_path / "run"
    path = directory / "pytorch_model.bin"
    torch.save({"a": Unsafe(marker)}, path, _use_new_zipfile_serialization=zipped)
    assert refusal(directory).startswith(f"{path}: cannot be read as plain tensors (")
    assert not marker.exists()


@pytest.mark.parametrize("state", [[1], {"state_dict": {}}, {"epoch": 3}])
def test_a_pickle_of_something_else(bert: PreTrainedModel, tmp_path: Path, state: object) -> None:
    directory = tiny.save_legacy(bert, tmp_path / "model")
    torch.save(state, directory / "pytorch_model.bin")
    assert refusal(directory).endswith("pytorch_model.bin: expected a mapping of names to tensors")


@pytest.mark.parametrize("keep", [0, 10, 0.5])
def test_a_truncated_pickle(bert: PreTrainedModel, tmp_path: Path, keep: float) -> None:
    path = tiny.save_legacy(bert, tmp_path / "model") / "pytorch_model.bin"
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    assert refusal(path.parent).startswith(f"{path}: cannot be read as plain tensors (")


def test_an_already_quantized_model(original: Path) -> None:
    tiny.change_config(original, quantization_config={"quant_method": "gptq", "bits": 4})
    assert refusal(original) == f"{original}: is already quantized (gptq); give the original it was made from"


def test_an_architecture_of_no_known_task(original: Path) -> None:
    tiny.change_config(original, architectures=["SomethingForDreaming"])
    assert "'SomethingForDreaming'" in refusal(original)


def test_an_unknown_kind_of_model(original: Path) -> None:
    tiny.change_config(original, model_type="zzz")
    assert refusal(original).startswith(f"{original}: transformers cannot build this model (")


def test_a_model_with_its_own_code_is_refused_without_a_question(
    original: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    marker = tmp_path / "run"
    (original / "custom.py").write_text(f"from pathlib import Path\nPath({str(marker)!r}).touch()\n")
    tiny.change_config(original, model_type="zzz", auto_map={"AutoConfig": "custom.Custom"})

    questions: list[str] = []

    def ask(prompt: str) -> str:
        questions.append(prompt)
        return "yes"

    monkeypatch.setattr("builtins.input", ask)
    assert refusal(original).startswith(f"{original}: transformers cannot build this model (")
    assert questions == []
    assert not marker.exists()
