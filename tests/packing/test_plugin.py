"""Packed artifacts through plain `from_pretrained`: the dense model bit for bit, or an error that names the weight."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import tiny
import torch
import transformers as hf
from payloads import crafted
from safetensors.torch import load_file, save_file
from transformers.quantizers import auto

from optimizer.loading import load
from optimizer.packing import codec
from optimizer.packing.marker import METHOD
from optimizer.packing.payload import PayloadError, is_payload, pack
from optimizer.task import Task, auto_class
from optimizer.unpack import unpack
from optimizer.weight import Codes, Weight

MIB = 1 << 20
STEP: dict[str, Any] = {"prune": {"amount": 0.3}, "quantize": {"step": 0.25}, "cast": {}}
PLAIN: dict[str, dict[str, Any]] = {
    "nothing": {},
    "half": {"cast": {}},
    "bfloat16": {"cast": {"dtype": "bfloat16", "compute": "stored"}},
    "pruned": {"prune": {"amount": 0.3}, "cast": {}},
    "bits": {"quantize": {"bits": 8}, "cast": {}},
    "step": STEP,
}
BITSANDBYTES: dict[str, dict[str, Any]] = {
    "int8": {"bitsandbytes": {}},
    "nf4": {"bitsandbytes": {"bits": 4}},
}
BALANCED: dict[str, Any] = {
    "prune": {"amount": 0.3},
    "threshold": {"value": 1e-3},
    "quantize": {"bits": 8, "roles": ["embedding"]},
    "bitsandbytes": {},
    "cast": {"compute": "auto"},
}
QUERY = "bert.encoder.layer.0.attention.self.query.weight"
LINEAR = {"int8": "Linear8bitLt", "balanced": "Linear8bitLt", "nf4": "Linear4bit"}
# The conftest has no tiny model for audio.
TASKS = [task for task in get_args(Task) if task != "audio-classification"]


def mixtral() -> hf.PreTrainedModel:
    """Its experts are stored one by one and merged into one parameter while loading."""
    torch.manual_seed(0)
    config = hf.MixtralConfig(
        vocab_size=tiny.VOCABULARY, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, num_local_experts=4, max_position_embeddings=32, initializer_range=0.3,
    )  # fmt: skip
    return hf.MixtralForCausalLM(config)


def wav2vec2() -> hf.PreTrainedModel:
    """Convolutions, one of them in two tensors with "weight" in the middle of their names."""
    torch.manual_seed(0)
    config = hf.Wav2Vec2Config(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, conv_dim=(16, 16),
        conv_stride=(2, 2), conv_kernel=(3, 3), num_feat_extract_layers=2, num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2, num_labels=3, classifier_proj_size=16,
    )  # fmt: skip
    return hf.Wav2Vec2ForSequenceClassification(config)


MODELS: dict[str, Callable[[], hf.PreTrainedModel]] = {
    "bert": tiny.bert,
    "gpt2": tiny.gpt2,
    "llama": tiny.llama,
    "t5": tiny.t5,
    "mixtral": mixtral,
    "wav2vec2": wav2vec2,
}


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    directory = tmp_path_factory.mktemp("originals")

    def original(name: str) -> Path:
        if not (directory / name).exists():
            tiny.save(MODELS[name](), directory / name)
        return directory / name

    return original


@pytest.fixture
def both(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """The same recipe on the same original, packed and dense."""

    def make(original: Path, stages: dict[str, Any]) -> tuple[Path, Path]:
        for output_format in ("packed", "dense"):
            tiny.optimize(original, tmp_path / output_format, stages, format=output_format)
        return tmp_path / "packed", tmp_path / "dense"

    return make


def answer(model: Any) -> torch.Tensor:
    """Its first output, for inputs that suit it."""
    name = model.main_input_name
    random = torch.Generator().manual_seed(0)
    match name:
        case "pixel_values":
            size = model.config.image_size
            inputs = {name: torch.randn(1, 3, size, size, generator=random)}
        case "input_values":
            inputs = {name: torch.randn(1, 400, generator=random)}
        case _:
            inputs = {name: torch.arange(10).reshape(2, 5) % model.config.vocab_size}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = inputs[name]
    with torch.no_grad():
        output: torch.Tensor = model(
            **{key: value.to(model.dtype) if value.is_floating_point() else value for key, value in inputs.items()}
        )[0]
    return output


def assert_same(found: Any, expected: Any) -> None:
    """The same class, settings, tensors and answers."""
    assert type(found) is type(expected)
    assert (found.training, found.dtype) == (expected.training, expected.dtype)
    ours, theirs = found.config.to_dict(), expected.config.to_dict()
    for config in (ours, theirs):
        config.pop("_name_or_path", None)
    assert ours.pop("quantization_config", None) == theirs.pop("quantization_config", None)
    assert ours == theirs
    for tensors, others in (
        (found.state_dict(), expected.state_dict()),
        (dict(found.named_buffers()), dict(expected.named_buffers())),
    ):
        assert list(tensors) == list(others)
        for name, tensor in tensors.items():
            assert (tensor.dtype, tensor.shape) == (others[name].dtype, others[name].shape), name
            assert torch.equal(tensor, others[name]), name
    for name, parameter in found.named_parameters():
        assert parameter.requires_grad == expected.get_parameter(name).requires_grad, name
    assert torch.equal(answer(found), answer(expected))


def kinds(model: Any) -> set[str]:
    return {type(module).__name__ for module in model.modules() if "Linear" in type(module).__name__}


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


@pytest.mark.parametrize("name", ["gpt2", "llama", "mixtral", "wav2vec2"])
def test_models_with_layouts_of_their_own(
    originals: Callable[[str], Path], both: Callable[..., tuple[Path, Path]], name: str
) -> None:
    stages = {"prune": {"amount": 0.3}, "quantize": {"bits": 8, "roles": ["linear"]}, "cast": {}}
    packed, dense = both(originals(name), stages)
    stored = load_file(packed / "model.safetensors")
    assert sum(map(is_payload, stored.values())) >= 10
    if name == "mixtral":
        assert is_payload(stored["model.layers.1.block_sparse_moe.experts.3.w1.weight"])
    assert_same(load(packed), load(dense))


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
@pytest.mark.parametrize("name", ["bert", "gpt2", "mixtral"])
def test_bitsandbytes(
    originals: Callable[[str], Path], both: Callable[..., tuple[Path, Path]], name: str, recipe: str
) -> None:
    packed, dense = both(originals(name), BITSANDBYTES[recipe])
    found = load(packed)
    assert LINEAR[recipe] in kinds(found)
    assert_same(found, load(dense))


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
            matrix = tensor.dim() > 1 and key.endswith("weight")
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


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", ["bert", "t5", pytest.param("mixtral", marks=pytest.mark.slow)])
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


# errors


def spoil(directory: Path, name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    path = directory / "model.safetensors"
    tensors = load_file(path)
    tensors[name] = change(tensors[name])
    save_file(tensors, path, {"format": "pt"})


def flipped(place: int) -> Callable[[torch.Tensor], torch.Tensor]:
    def flip(payload: torch.Tensor) -> torch.Tensor:
        payload[place] ^= 1
        return payload

    return flip


def matrix(rows: int, columns: int) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))


def coded(rows: int, columns: int) -> torch.Tensor:
    codes = Codes((matrix(rows, columns) * 9).to(torch.int8), torch.ones(()), torch.float16)
    return pack(Weight("other", codes.restore(), "linear", "other", codes=codes))


DAMAGE: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], str]] = {
    "magic": (flipped(0), r"no payload, and of shape \(\d+,\), not \(64, 64\)"),
    "version": (flipped(4), "payload has format version 0, this program reads 1"),
    "header": (flipped(5), "payload's header is damaged"),
    "end": (flipped(-1), ""),
    "middle": (flipped(1000), ""),
    "cut": (lambda payload: payload[:-1].clone(), ""),
    "longer": (lambda payload: torch.cat([payload, payload[:1]]), ""),
    "empty": (lambda payload: payload[:0].clone(), r"no payload, and of shape \(0,\), not \(64, 64\)"),
    "of another shape": (lambda _: codec.encode(matrix(32, 64)), r"payload holds shape \(32, 64\), not \(64, 64\)"),
    "transposed": (lambda _: codec.encode(matrix(16, 256)), r"payload holds shape \(16, 256\), not \(64, 64\)"),
    "codes of another shape": (lambda _: coded(64, 32), r"payload holds shape \(64, 32\), not \(64, 64\)"),
    "larger": (lambda _: coded(64, 65), r"payload holds shape \(64, 65\) for a parameter of 4096 values"),
    "hostile": (lambda _: crafted([1 << 30, 1 << 30], 0, b""), "for a parameter of 4096 values"),
    "plain": (lambda _: matrix(64, 32), r"no payload, and of shape \(64, 32\), not \(64, 64\)"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_payload_names_its_weight(
    originals: Callable[[str], Path], both: Callable[..., tuple[Path, Path]], damage: str
) -> None:
    packed, _ = both(originals("bert"), {"quantize": {"bits": 8, "roles": ["linear"]}})
    change, said = DAMAGE[damage]
    spoil(packed, QUERY, change)
    with pytest.raises(PayloadError, match=f"^{QUERY}: cannot be unpacked: .*{said}"):
        load(packed)


@pytest.mark.parametrize("recipe", BITSANDBYTES)
def test_a_damaged_payload_of_bitsandbytes_names_its_weight(
    originals: Callable[[str], Path], both: Callable[..., tuple[Path, Path]], recipe: str
) -> None:
    """Its parameters take tensors of any shape, so that nothing after the plug-in would see this."""
    packed, _ = both(originals("bert"), BITSANDBYTES[recipe])
    sound = (packed / "model.safetensors").read_bytes()
    small = codec.encode(torch.zeros((32, 64) if recipe == "int8" else (1024, 1), dtype=torch.int8))
    for change in (flipped(0), flipped(-1), lambda _: small, lambda payload: payload[:100].clone()):
        spoil(packed, QUERY, change)
        with pytest.raises(PayloadError, match=f"^{QUERY}: cannot be unpacked: "):
            load(packed)
        (packed / "model.safetensors").write_bytes(sound)
    load(packed)


def test_a_damaged_payload_that_is_merged_names_what_it_becomes(
    originals: Callable[[str], Path], both: Callable[..., tuple[Path, Path]]
) -> None:
    packed, _ = both(originals("mixtral"), PLAIN["half"])
    spoil(packed, "model.layers.1.block_sparse_moe.experts.2.w3.weight", flipped(-1))
    with pytest.raises(PayloadError, match=r"^model\.layers\.1\.mlp\.experts\.gate_up_proj: cannot be unpacked: "):
        load(packed)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_an_unknown_version_is_refused(
    originals: Callable[[str], Path], both: Callable[..., tuple[Path, Path]], version: Any
) -> None:
    packed, _ = both(originals("bert"), PLAIN["half"])
    config = json.loads((packed / "config.json").read_text())
    assert config["quantization_config"] == {"quant_method": METHOD, "format_version": 1}
    tiny.change_config(packed, quantization_config={"quant_method": METHOD, "format_version": version})
    with pytest.raises(ValueError, match=rf"packed format version {version} is not 1; load it with the release"):
        load(packed)


def test_without_the_plugin_loading_fails(
    originals: Callable[[str], Path], both: Callable[..., tuple[Path, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for stages in (PLAIN["half"], BITSANDBYTES["int8"]):
        packed, _ = both(originals("bert"), stages)
        with monkeypatch.context() as unplugged:
            unplugged.delitem(auto.AUTO_QUANTIZATION_CONFIG_MAPPING, METHOD)
            with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
                load(packed)


# memory


MEMORY = """
import json, re, sys, threading, time
import optimizer
import bitsandbytes, torch
from transformers import AutoModelForSequenceClassification
from transformers.models.bert import modeling_bert

def mebibytes(key):
    return int(re.search(key + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

torch.set_num_threads(1)
small, large = sys.argv[1:]
AutoModelForSequenceClassification.from_pretrained(small)
start, peak, done = mebibytes("RssAnon"), 0, False

def watch():
    global peak
    while not done:
        peak = max(peak, mebibytes("RssAnon"))
        time.sleep(0.001)

open("/proc/self/clear_refs", "w").write("5")
resident = mebibytes("VmRSS")
watcher = threading.Thread(target=watch)
watcher.start()
model = AutoModelForSequenceClassification.from_pretrained(large)
done = True
watcher.join()
print(json.dumps({"own": peak - start, "all": mebibytes("VmHWM") - resident}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["half", "step", "int8"])
def test_loading_takes_the_model_and_a_few_tensors(
    originals: Callable[[str], Path], tmp_path: Path, recipe: str
) -> None:
    """Neither all weights in their stored dtype nor all payloads are ever there at once."""
    stages = (PLAIN | BITSANDBYTES)[recipe]
    size = {"hidden_size": 512, "num_hidden_layers": 12, "intermediate_size": 2048, "num_attention_heads": 8}
    model = tiny.bert(vocab_size=1024, initializer_range=0.02, **size)
    few = 12 * max(parameter.nbytes for parameter in model.parameters()) / MIB
    assert few < sum(parameter.nbytes for parameter in model.parameters()) / MIB / 3
    tiny.optimize(tiny.save(model, tmp_path / "large"), tmp_path / "packed", stages, format="packed")
    tiny.optimize(originals("bert"), tmp_path / "small", stages, format="packed")
    weights = sum(parameter.nbytes for parameter in load(tmp_path / "packed").parameters()) / MIB
    packed = (tmp_path / "packed" / "model.safetensors").stat().st_size / MIB
    arguments = [sys.executable, "-c", MEMORY, str(tmp_path / "small"), str(tmp_path / "packed")]
    found = json.loads(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout)
    assert found["own"] < weights + few, found
    # The file is mapped: its pages count for as long as nobody else needs the memory.
    assert found["all"] < weights + few + packed, found
