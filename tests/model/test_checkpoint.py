"""Checkpoints: every layout that people have, read lazily, and every damage refused in one line."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from optimizer.model import shards as module
from optimizer.model.checkpoint import Checkpoint, open_checkpoint
from optimizer.model.directory import fingerprint, model_files
from optimizer.model.shards import weight_bytes


@pytest.fixture(scope="module")
def bert() -> PreTrainedModel:
    return tiny.bert()


@pytest.fixture
def original(bert: PreTrainedModel, tmp_path: Path) -> Path:
    return tiny.save(bert, tmp_path / "model")


def stored(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    return {weight.name: weight.tensor for weight in checkpoint.weights()}


def check_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def edit_weights(directory: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    path = directory / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


# layouts


def test_one_safetensors_file(original: Path, bert: PreTrainedModel) -> None:
    checkpoint = open_checkpoint(original)
    check_same(stored(checkpoint), bert.state_dict())
    assert checkpoint.task == "sequence-classification"
    assert checkpoint.parameters == sum(parameter.numel() for parameter in bert.parameters())
    assert not checkpoint.index
    assert (checkpoint.unknown, checkpoint.tied) == ((), ())
    assert weight_bytes(original) == (original / "model.safetensors").stat().st_size
    assert all(parameter.is_meta for parameter in checkpoint.model.parameters())


def test_shards(bert: PreTrainedModel, tmp_path: Path) -> None:
    directory = tiny.save(bert, tmp_path / "model", shard_size="100KB")
    files = sorted(path.name for path in directory.glob("*.safetensors"))
    assert len(files) > 2
    checkpoint = open_checkpoint(directory)
    assert [shard.output_name for shard in checkpoint.shards] == files
    assert checkpoint.index
    check_same(stored(checkpoint), bert.state_dict())
    assert weight_bytes(directory) == sum((directory / name).stat().st_size for name in files)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_a_legacy_pickle(bert: PreTrainedModel, tmp_path: Path, zipped: bool) -> None:
    checkpoint = open_checkpoint(tiny.save_legacy(bert, tmp_path / "model", zipped=zipped))
    assert [shard.output_name for shard in checkpoint.shards] == ["model.safetensors"]
    check_same(stored(checkpoint), bert.state_dict())
    check_same(stored(checkpoint), bert.state_dict())


def test_legacy_pickles_under_an_index(bert: PreTrainedModel, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(tiny.save_legacy(bert, tmp_path / "model", shards=3))
    assert [shard.output_name for shard in checkpoint.shards] == [
        f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)
    ]
    assert checkpoint.index
    check_same(stored(checkpoint), bert.state_dict())


def test_safetensors_come_before_a_pickle_beside_them(original: Path) -> None:
    (original / "pytorch_model.bin").write_bytes(b"not read")
    assert [shard.path.name for shard in open_checkpoint(original).shards] == ["model.safetensors"]


def test_a_pickle_of_parameters_and_of_views(tmp_path: Path, bert: PreTrainedModel) -> None:
    directory = tiny.save_legacy(bert, tmp_path / "model")
    path = directory / "pytorch_model.bin"
    state = torch.load(path, weights_only=True)
    state["classifier.weight"] = torch.nn.Parameter(state["classifier.weight"])
    state["bert.pooler.dense.weight"] = state["bert.pooler.dense.weight"].T.contiguous().T
    torch.save(state, path)
    checkpoint = open_checkpoint(directory)
    found = stored(checkpoint)
    check_same(found, bert.state_dict())
    assert all(tensor.is_contiguous() and not tensor.requires_grad for tensor in found.values())


@pytest.mark.parametrize("build", [tiny.gpt2, tiny.llama])
def test_a_tied_weight_stored_twice_is_read_once(build: Callable[[], PreTrainedModel], tmp_path: Path) -> None:
    model = build()
    twice = open_checkpoint(tiny.save_legacy(model, tmp_path / "twice"))
    once = open_checkpoint(tiny.save(model, tmp_path / "once"))
    assert twice.tied == ("lm_head.weight",)
    assert once.tied == ()
    check_same(stored(twice), stored(once))
    assert twice.parameters == once.parameters
    assert "lm_head.weight" not in twice.places


def test_one_weight_under_four_names_in_two_files(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(tiny.save_legacy(tiny.t5(), tmp_path / "model", shards=2))
    assert set(checkpoint.tied) == {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"}
    assert "shared.weight" in stored(checkpoint)


def test_a_tied_name_with_other_values_is_kept(tmp_path: Path) -> None:
    directory = tiny.save_legacy(tiny.gpt2(), tmp_path / "model")
    state = torch.load(directory / "pytorch_model.bin", weights_only=True)
    state["lm_head.weight"] = state["lm_head.weight"] + 1
    torch.save(state, directory / "pytorch_model.bin")
    checkpoint = open_checkpoint(directory)
    assert checkpoint.tied == ()
    assert "lm_head.weight" in stored(checkpoint)


def test_tensors_that_the_model_does_not_know_are_carried_over(original: Path) -> None:
    extra = {"bert.embeddings.position_ids": torch.arange(32), "extra.weight": torch.ones(2, 2)}
    edit_weights(original, lambda state: state | extra)
    checkpoint = open_checkpoint(original)
    assert set(checkpoint.unknown) == set(extra)
    roles = {weight.name: weight.role for weight in checkpoint.weights()}
    assert roles["extra.weight"] is None
    assert torch.equal(stored(checkpoint)["extra.weight"], extra["extra.weight"])
    assert checkpoint.parameters == sum(math_size(shape) for name, shape in shapes(checkpoint) if name not in extra)


def shapes(checkpoint: Checkpoint) -> list[tuple[str, tuple[int, ...]]]:
    return [item for shard in checkpoint.shards for item in shard.shapes.items()]


def math_size(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())


def test_a_checkpoint_of_the_base_model_under_a_head_class(original: Path) -> None:
    edit_weights(original, lambda state: {name.removeprefix("bert."): tensor for name, tensor in state.items()})
    checkpoint = open_checkpoint(original)
    assert checkpoint.unknown == ()
    weight = next(weight for weight in checkpoint.weights() if weight.name == "encoder.layer.0.output.dense.weight")
    assert (weight.role, weight.module) == ("linear", "bert.encoder.layer.0.output.dense")


def test_the_old_names_of_norms(original: Path) -> None:
    def rename(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
        return {
            next((name.replace(new, gamma) for new, gamma in old.items() if new in name), name): tensor
            for name, tensor in state.items()
        }

    edit_weights(original, rename)
    checkpoint = open_checkpoint(original)
    assert checkpoint.unknown == ()
    assert {weight.role for weight in checkpoint.weights() if weight.name.endswith("gamma")} == {"norm"}


def test_a_headless_model(bert: PreTrainedModel, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(tiny.save(bert.base_model, tmp_path / "model"))
    assert checkpoint.task == "encoder"
    assert checkpoint.unknown == ()


def test_a_null_where_a_quantization_would_be_is_none(original: Path) -> None:
    tiny.change_config(original, quantization_config=None)
    assert "quantization_config" not in open_checkpoint(original).config


# laziness


class Spy:
    """A safetensors reader that counts what is read."""

    read: list[str]

    def __init__(self, path: Path, framework: str) -> None:
        self._file: Any = safe_open(path, framework=framework)

    def __enter__(self) -> "Spy":
        self._file.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._file.__exit__(*error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def get_tensor(self, name: str) -> torch.Tensor:
        Spy.read.append(name)
        tensor: torch.Tensor = self._file.get_tensor(name)
        return tensor


def test_nothing_is_read_before_it_is_asked_for(original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Spy.read = []
    monkeypatch.setattr(module, "safe_open", Spy)
    checkpoint = open_checkpoint(original)
    weights = checkpoint.weights()
    assert Spy.read == []
    first = next(weights)
    assert Spy.read == [first.name]
    second = next(weights)
    assert Spy.read == [first.name, second.name]
    weights.close()  # type: ignore[attr-defined]


def test_every_pass_is_fresh(original: Path) -> None:
    checkpoint = open_checkpoint(original)
    for weight in checkpoint.weights():
        weight.tensor.fill_(7)
        break
    once = [(weight.name, weight.tensor) for weight in checkpoint.weights()]
    again = [(weight.name, weight.tensor) for weight in checkpoint.weights()]
    assert [name for name, _ in once] == [name for name, _ in again]
    assert all(torch.equal(first, second) for (_, first), (_, second) in zip(once, again, strict=True))
    assert not torch.equal(once[0][1], torch.full_like(once[0][1], 7))


# fingerprint


def test_a_copy_has_the_same_fingerprint(original: Path, tmp_path: Path) -> None:
    shutil.copytree(original, tmp_path / "elsewhere")
    assert fingerprint(tmp_path / "elsewhere") == fingerprint(original)
    assert len(fingerprint(original)) == 64


def test_any_file_changes_the_fingerprint(original: Path) -> None:
    seen = {fingerprint(original)}
    tiny.change_config(original, note=1)
    seen.add(fingerprint(original))
    content = bytearray((original / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (original / "model.safetensors").write_bytes(content)
    seen.add(fingerprint(original))
    (original / "deeper").mkdir()
    (original / "deeper" / "vocab.txt").write_text("")
    seen.add(fingerprint(original))
    (original / "deeper" / "vocab.txt").rename(original / "vocab.txt")
    seen.add(fingerprint(original))
    assert len(seen) == 5


def test_hidden_files_and_training_checkpoints_do_not(original: Path) -> None:
    before, files = fingerprint(original), model_files(original)
    (original / ".git").mkdir()
    (original / ".git" / "HEAD").write_text("x")
    (original / ".hidden").write_text("x")
    (original / "checkpoint-500").mkdir()
    (original / "checkpoint-500" / "model.safetensors").write_text("x")
    (original / "empty").mkdir()
    assert fingerprint(original) == before
    assert model_files(original) == files


def test_a_model_below_a_hidden_directory_is_seen(original: Path, tmp_path: Path) -> None:
    shutil.copytree(original, tmp_path / ".cache" / "checkpoint-1" / "model")
    assert fingerprint(tmp_path / ".cache" / "checkpoint-1" / "model") == fingerprint(original)
