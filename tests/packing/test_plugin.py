"""Packed artifacts through plain `from_pretrained`: the dense model, bit for bit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import tiny
import torch
from artifacts import BALANCED, BITSANDBYTES, LINEAR, MODELS, PLAIN, QUERY, STEP, answer, assert_same, kinds
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, pipeline

import optimizer
from optimizer.model.loading import load
from optimizer.model.task import Task, auto_class
from optimizer.packing.marker import FIRST
from optimizer.packing.payload import is_payload
from optimizer.unpack import unpack

# The conftest has no tiny model for audio.
TASKS = [task for task in get_args(Task) if task != "audio-classification"]


ODD = {
    "mixtral": ["model.layers.1.block_sparse_moe.experts.3.w1.weight"],
    "gpt_oss": ["model.layers.0.mlp.experts.gate_up_proj", "model.layers.0.mlp.experts.down_proj"],
    "xlnet": [f"transformer.layer.0.rel_attn.{name}" for name in "qkvor"],
    "funnel": ["funnel.encoder.blocks.0.0.attention.r_kernel"],
    "wav2vec2": ["wav2vec2.encoder.pos_conv_embed.conv.parametrizations.weight.original1"],
}
"""Matrices that are not called `weight`, or are merged."""

# the dense model, bit for bit


@pytest.mark.parametrize("task", TASKS)
def test_every_task(tiny_model: Callable[..., Path], both: Callable[..., tuple[Path, Path]], task: Task) -> None:
    stages = STEP if task != "image-classification" else STEP | {"quantize": {"step": 0.25, "roles": ["linear"]}}
    packed, dense = both(tiny_model(task), stages)
    assert_same(auto_class(task).from_pretrained(packed), auto_class(task).from_pretrained(dense))


@pytest.mark.parametrize("recipe", PLAIN)
@pytest.mark.parametrize("name", ["bert", pytest.param("t5", marks=pytest.mark.slow)])
def test_every_recipe(
    originals: Callable[[str], Path], both: Callable[..., tuple[Path, Path]], name: str, recipe: str
) -> None:
    packed, dense = both(originals(name), PLAIN[recipe])
    assert_same(load(packed), load(dense))


@pytest.mark.parametrize("name", ["gpt2", "llama", "mixtral", "gpt_oss", "xlnet", "funnel", "wav2vec2"])
def test_models_with_layouts_of_their_own(
    originals: Callable[[str], Path], both: Callable[..., tuple[Path, Path]], name: str
) -> None:
    stages = {"prune": {"amount": 0.3}, "quantize": {"bits": 8, "roles": ["linear"]}, "cast": {}}
    packed, dense = both(originals(name), stages)
    stored = load_file(packed / "model.safetensors")
    assert sum(map(is_payload, stored.values())) >= 9
    for matrix in ODD.get(name, ()):
        assert is_payload(stored[matrix]), matrix
    assert_same(load(packed), load(dense))


def test_experts_that_a_file_holds_in_one_tensor(both: Callable[..., tuple[Path, Path]], tmp_path: Path) -> None:
    """Which is how they are saved again, though transformers would split them."""
    original = tiny.save(MODELS["mixtral"](), tmp_path / "fused", fused=True)
    packed, dense = both(original, STEP)
    experts = "model.layers.0.mlp.experts.gate_up_proj"
    assert is_payload(load_file(packed / "model.safetensors")[experts])
    assert_same(load(packed), load(dense))
    load(packed).save_pretrained(tmp_path / "again")
    load(dense).save_pretrained(tmp_path / "expected")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (
        tmp_path / "expected" / "model.safetensors"
    ).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("recipe", PLAIN)
@pytest.mark.parametrize("task", TASKS)
def test_every_task_with_every_recipe(
    tiny_model: Callable[..., Path], both: Callable[..., tuple[Path, Path]], task: Task, recipe: str
) -> None:
    stages = {label: settings | {"roles": ["linear"]} for label, settings in PLAIN[recipe].items()}
    packed, dense = both(tiny_model(task), stages)
    assert_same(load(packed), load(dense))


@pytest.mark.parametrize("recipe", BITSANDBYTES)
@pytest.mark.parametrize("name", ["bert", "gpt2", "mixtral", "gpt_oss", "xlnet"])
def test_bitsandbytes(
    originals: Callable[[str], Path], both: Callable[..., tuple[Path, Path]], name: str, recipe: str
) -> None:
    packed, dense = both(originals(name), BITSANDBYTES[recipe])
    found = load(packed)
    assert LINEAR[recipe] in kinds(found)
    assert_same(found, load(dense))


def test_a_pipeline_takes_either_by_its_directory(
    tiny_model: Callable[..., Path], both: Callable[..., tuple[Path, Path]]
) -> None:
    original = tiny_model("sequence-classification")
    texts = ["the cat sees a dog", "a small dog likes the red cat"]
    packed, dense = (pipeline("text-classification", model=str(each))(texts) for each in both(original, STEP))
    assert packed == dense
    assert [set(answer) for answer in packed] == [{"label", "score"}] * 2


def test_everything_at_once_computes_in_float32(originals: Callable[[str], Path], tmp_path: Path) -> None:
    """Dense, the same recipe has to compute in float16; unpacked it is what the packed one is."""
    tiny.optimize(originals("bert"), tmp_path / "packed", BALANCED, format="packed")
    unpack(tmp_path / "packed", tmp_path / "unpacked")
    found = load(tmp_path / "packed")
    assert kinds(found) == {"Linear", "Linear8bitLt"}
    assert found.dtype == torch.float32
    assert_same(found, load(tmp_path / "unpacked"))
    tiny.optimize(originals("bert"), tmp_path / "dense", BALANCED)
    dense = load(tmp_path / "dense")
    assert dense.dtype == torch.float16
    for name, tensor in dense.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor.to(found.state_dict()[name].dtype)), name


def test_shards(originals: Callable[[str], Path], both: Callable[..., tuple[Path, Path]], tmp_path: Path) -> None:
    for stages in (STEP, BITSANDBYTES["int8"]):
        original = tiny.save(tiny.bert(), tmp_path / "sharded", shard_size="100KB")
        packed, dense = both(original, stages)
        assert len(list(packed.glob("*.safetensors"))) > 2
        assert_same(load(packed), load(dense))


def test_a_checkpoint_of_the_base_model(
    originals: Callable[[str], Path], both: Callable[..., tuple[Path, Path]], tmp_path: Path
) -> None:
    """Its names lack the prefix that the classifier's have."""
    original = tiny.save(tiny.bert(), tmp_path / "base")
    tensors = load_file(original / "model.safetensors")
    save_file({name.removeprefix("bert."): tensor for name, tensor in tensors.items()}, original / "model.safetensors")
    packed, dense = both(original, STEP)
    assert_same(load(packed), load(dense))


def test_vectors_are_stored_plain_and_a_payload_never_has_the_shape_of_its_weight(
    originals: Callable[[str], Path], both: Callable[..., tuple[Path, Path]]
) -> None:
    for name in ("bert", "wav2vec2"):
        packed, dense = (load_file(path / "model.safetensors") for path in both(originals(name), PLAIN["half"]))
        assert set(packed) == set(dense)
        for key, tensor in dense.items():
            matrix = tensor.dim() > 1 and key.endswith(("weight", "weight.original1"))
            assert is_payload(packed[key]) == matrix, key
            assert (packed[key].shape == tensor.shape) == (not matrix), key
            if not matrix:
                assert packed[key].dtype == torch.float16
                assert torch.equal(packed[key], tensor)


# options of from_pretrained


OPTIONS: dict[str, dict[str, Any]] = {
    "float16": {"dtype": torch.float16},
    "bfloat16": {"dtype": torch.bfloat16},
    "by name": {"dtype": "bfloat16"},
    "auto": {"dtype": "auto"},
    "device map": {"device_map": "cpu"},
    "devices": {"device_map": {"": "cpu"}, "dtype": torch.float16},
}


@pytest.mark.parametrize(
    ("name", "options"),
    [*(("bert", options) for options in OPTIONS), ("t5", "float16"), ("t5", "bfloat16"), ("mixtral", "devices")],
)
def test_dtype_and_device_map(
    originals: Callable[[str], Path], both: Callable[..., tuple[Path, Path]], name: str, options: str
) -> None:
    packed, dense = both(originals(name), STEP)
    found = load(packed, **OPTIONS[options])
    assert_same(found, load(dense, **OPTIONS[options]))
    if name == "t5" and OPTIONS[options].get("dtype") == torch.float16:
        assert found.encoder.block[0].layer[1].DenseReluDense.wo.weight.dtype == torch.float32
        assert found.encoder.block[0].layer[1].DenseReluDense.wi.weight.dtype == torch.float16


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("recipe", BITSANDBYTES)
def test_dtype_with_bitsandbytes(
    originals: Callable[[str], Path], both: Callable[..., tuple[Path, Path]], recipe: str, dtype: torch.dtype
) -> None:
    """A dense artifact leaves its other weights in the dtype they are stored in, and then cannot compute."""
    packed, dense = (load(path, dtype=dtype) for path in both(originals("bert"), BITSANDBYTES[recipe]))
    for name, tensor in dense.state_dict().items():
        found = packed.state_dict()[name]
        cast = tensor.is_floating_point() and not name.endswith(("SCB", "absmax", "quant_map"))
        assert found.dtype == (dtype if cast else tensor.dtype), name
        assert torch.equal(found, tensor.to(found.dtype)), name
    assert answer(packed).isfinite().all()


@pytest.mark.slow
def test_offloaded_to_disk(
    originals: Callable[[str], Path], both: Callable[..., tuple[Path, Path]], tmp_path: Path
) -> None:
    packed, dense = both(originals("bert"), STEP)
    where = {"bert.embeddings": "cpu", "bert.encoder": "disk", "bert.pooler": "cpu", "classifier": "cpu"}
    found = load(packed, device_map=where, offload_folder=tmp_path / "offload")
    assert torch.equal(answer(found), answer(load(dense)))


# how it attends


@pytest.mark.parametrize("attention", [None, "eager", {"": "sdpa", "text_config": "eager"}])
def test_it_attends_as_the_dense_one(
    tiny_model: Callable[..., Path], both: Callable[..., tuple[Path, Path]], tmp_path: Path, attention: Any
) -> None:
    """Though config.json has words in that place, with which transformers alone ends."""
    task: Task = "zero-shot-image-classification" if isinstance(attention, dict) else "sequence-classification"
    original = tiny_model(task, tmp_path / "original")
    if attention is not None:
        tiny.change_config(original, attn_implementation=attention)
    packed, dense = both(original, {"cast": {}})
    assert json.loads((packed / "config.json").read_text())["attn_implementation"] == FIRST
    expected = _attention(load(dense).config)
    for loaded in (load(packed), optimizer.load(packed)):
        assert _attention(loaded.config) == expected
    config = AutoConfig.from_pretrained(packed)  # as sentence-transformers does
    assert _attention(auto_class(task).from_pretrained(packed, config=config).config) == expected
    assert auto_class(task).from_pretrained(packed, attn_implementation="eager").config._attn_implementation == "eager"
    unpack(packed, tmp_path / "unpacked")
    assert (tmp_path / "unpacked" / "config.json").read_bytes() == (dense / "config.json").read_bytes()


def _attention(config: Any) -> list[Any]:
    return [part._attn_implementation for part in (config, *(getattr(config, name) for name in config.sub_configs))]


# saved again


@pytest.mark.parametrize("name", ["bert", "t5", "mixtral"])
def test_saved_again_it_is_a_plain_model(
    originals: Callable[[str], Path],
    both: Callable[..., tuple[Path, Path]],
    tmp_path: Path,
    name: str,
) -> None:
    packed, dense = both(originals(name), STEP)
    load(packed).save_pretrained(tmp_path / "again")
    assert "quantization_config" not in json.loads((tmp_path / "again" / "config.json").read_text())
    load(dense).save_pretrained(tmp_path / "expected")
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "expected" / file).read_bytes()
    assert_same(load(tmp_path / "again"), load(dense))


@pytest.mark.parametrize("recipe", BITSANDBYTES)
def test_saved_again_bitsandbytes_is_plain_bitsandbytes(
    originals: Callable[[str], Path], both: Callable[..., tuple[Path, Path]], tmp_path: Path, recipe: str
) -> None:
    packed, dense = both(originals("bert"), BITSANDBYTES[recipe])
    load(packed).save_pretrained(tmp_path / "again")
    config = json.loads((tmp_path / "again" / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == "bitsandbytes"
    assert_same(load(tmp_path / "again"), load(dense))


def test_what_is_loaded_can_be_trained(
    originals: Callable[[str], Path], both: Callable[..., tuple[Path, Path]]
) -> None:
    packed, _ = both(originals("bert"), STEP)
    model = load(packed).train()
    model(**tiny.INPUTS, labels=torch.tensor([0, 1])).loss.backward()
    gradient = model.get_parameter(QUERY).grad
    assert gradient is not None
    assert gradient.abs().sum() > 0
