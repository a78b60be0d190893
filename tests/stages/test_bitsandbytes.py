"""bitsandbytes, written tensor by tensor: the very bytes that transformers would store, and the same answers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from transformers import BitsAndBytesConfig, PreTrainedModel

import optimizer
from optimizer.errors import RecipeError, StageError
from optimizer.model.checkpoint import Checkpoint
from optimizer.model.loading import load
from optimizer.model.roles import linear_modules
from optimizer.model.weight import Parts

MODELS: dict[str, Callable[[], PreTrainedModel]] = {"bert": tiny.bert, "gpt2": tiny.gpt2, "llama": tiny.llama}
SETTINGS: dict[str, dict[str, Any]] = {
    "int8": {"bits": 8},
    "nf4": {"bits": 4},
    "fp4": {"bits": 4, "type": "fp4", "double_quantization": False},
}


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("originals")
    return {name: tiny.save(build(), directory / name) for name, build in MODELS.items()}


def stored(directory: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(directory / "model.safetensors"))


def quantization(directory: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((directory / "config.json").read_text())["quantization_config"]
    return values


def by_transformers(original: Path, place: Path, settings: dict[str, Any], skipped: list[str]) -> PreTrainedModel:
    """The model quantized in memory and saved, which is how everybody else makes such an artifact."""
    config = BitsAndBytesConfig(
        load_in_8bit=settings["bits"] == 8,
        load_in_4bit=settings["bits"] == 4,
        llm_int8_skip_modules=skipped,
        bnb_4bit_quant_type=settings.get("type", "nf4"),
        bnb_4bit_use_double_quant=settings.get("double_quantization", True),
        bnb_4bit_compute_dtype="float32",
    )
    model: PreTrainedModel = load(original, quantization_config=config)
    model.save_pretrained(place)
    return model


def answer(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(**tiny.INPUTS).logits
    return logits


@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("name", MODELS)
def test_the_same_bytes_and_answers_as_transformers(
    originals: dict[str, Path], tmp_path: Path, name: str, kind: str
) -> None:
    tiny.optimize(originals[name], tmp_path / "ours", {"bitsandbytes": SETTINGS[kind]})
    skipped = quantization(tmp_path / "ours")["llm_int8_skip_modules"]
    theirs = by_transformers(originals[name], tmp_path / "theirs", SETTINGS[kind], skipped)
    ours, expected = stored(tmp_path / "ours"), stored(tmp_path / "theirs")
    assert set(ours) == set(expected)
    for tensor_name, tensor in expected.items():
        found = ours[tensor_name]
        assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape), tensor_name
        assert torch.equal(found, tensor), tensor_name
    codes = torch.int8 if kind == "int8" else torch.uint8
    assert sum(tensor.dtype == codes and tensor.dim() == 2 for tensor in ours.values()) >= 8
    assert torch.equal(answer(load(tmp_path / "ours")), answer(theirs))


@pytest.mark.parametrize("kind", SETTINGS)
def test_the_settings_in_config_json_are_those_of_transformers(
    originals: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    tiny.optimize(originals["bert"], tmp_path / "ours", {"bitsandbytes": SETTINGS[kind]})
    ours = quantization(tmp_path / "ours")
    by_transformers(originals["bert"], tmp_path / "theirs", SETTINGS[kind], ours["llm_int8_skip_modules"])
    theirs = quantization(tmp_path / "theirs")
    assert ours.items() <= theirs.items()


def test_the_threshold_of_outliers_is_stored(originals: dict[str, Path], tmp_path: Path) -> None:
    tiny.optimize(originals["bert"], tmp_path / "ours", {"bitsandbytes": {"outliers": 3.5}})
    assert quantization(tmp_path / "ours")["llm_int8_threshold"] == 3.5
    assert load(tmp_path / "ours").bert.pooler.dense.state.threshold == 3.5


@pytest.mark.parametrize(("name", "head"), [("bert", "classifier"), ("gpt2", "lm_head"), ("llama", "lm_head")])
def test_the_head_is_kept_out_and_the_log_says_why(originals: dict[str, Path], name: str, head: str) -> None:
    lines: list[str] = []
    at = tiny.staged(originals[name], {"bitsandbytes": {}}, lines.append)
    assert head in at.outline.config["quantization_config"]["llm_int8_skip_modules"]
    assert all(not stored_name.startswith(f"{head}.SCB") for stored_name in tiny.values(at))
    if name == "bert":
        assert "bitsandbytes: classifier stays as it is: it is the head" in lines


def test_an_untied_output_is_kept_out(tmp_path: Path) -> None:
    model = tiny.llama(tie_word_embeddings=False)
    original = tiny.save(model, tmp_path / "model")
    lines: list[str] = []
    values = tiny.values(tiny.staged(original, {"bitsandbytes": {}}, lines.append))
    assert values["lm_head.weight"].dtype == torch.float32
    assert "bitsandbytes: lm_head stays as it is: it is the output" in lines


def test_shapes_that_the_four_bit_kernel_cannot_take_are_kept_out(tmp_path: Path) -> None:
    original = tiny.save(tiny.bert(intermediate_size=72), tmp_path / "model")
    lines: list[str] = []
    values = tiny.values(tiny.staged(original, {"bitsandbytes": {"bits": 4}}, lines.append))
    layer = "bert.encoder.layer.0."
    assert (
        f"bitsandbytes: {layer}intermediate.dense stays as it is: "
        "the 4-bit CPU kernel needs multiples of 32 x 64, it is 72 x 64"
    ) in lines
    assert values[f"{layer}intermediate.dense.weight"].dtype == torch.float32
    assert values[f"{layer}output.dense.weight"].dtype == torch.float32
    assert values[f"{layer}attention.self.query.weight"].dtype == torch.uint8
    tiny.optimize(original, tmp_path / "artifact", {"bitsandbytes": {"bits": 4}})
    assert answer(load(tmp_path / "artifact")).isfinite().all()


@pytest.mark.parametrize("recipe", ["balanced", "aggressive", "int8", "nf4"])
@pytest.mark.parametrize("format_", ["dense", "packed"])
def test_a_layer_whose_name_ends_in_the_heads(tmp_path: Path, recipe: str, format_: str) -> None:
    original = tiny.save(tiny.distilbert(), tmp_path / "model")
    tiny.shipped(original, tmp_path / "artifact", recipe, f"format={format_}")
    model = optimizer.load(tmp_path / "artifact")
    assert model.pre_classifier.weight.dtype in (torch.int8, torch.uint8)
    assert type(model.classifier) is torch.nn.Linear
    assert answer(model).isfinite().all()


@pytest.mark.parametrize("skipped", ["classifier", "pre_classifier"])
def test_config_json_tells_modules_apart_by_their_whole_names(tmp_path: Path, skipped: str) -> None:
    original = tiny.save(tiny.distilbert(), tmp_path / "model")
    tiny.optimize(original, tmp_path / "artifact", {"bitsandbytes": {"skip": [f"{skipped}.weight"]}})
    names = quantization(tmp_path / "artifact")["llm_int8_skip_modules"]
    expected = {"classifier": ["^classifier$"], "pre_classifier": ["pre_classifier", "classifier"]}
    assert names == expected[skipped]


def test_nothing_left_is_refused(originals: dict[str, Path], tmp_path: Path) -> None:
    remedy = "remove the stage, or choose another recipe"
    expected = rf"^stages\.bitsandbytes: no linear layer is left to quantize{{}}; {remedy}$"
    with pytest.raises(StageError, match=expected.format(r" \(classifier: it is the head\)")):
        tiny.staged(originals["bert"], {"bitsandbytes": {"only": ["classifier.weight"]}})
    with pytest.raises(RecipeError, match=expected.format("")):
        tiny.staged(originals["bert"], {"bitsandbytes": {"roles": ["embedding"]}})
    awkward = tiny.save(tiny.bert(hidden_size=40, intermediate_size=40), tmp_path / "model")
    with pytest.raises(StageError, match=expected.format(r" \(bert\..* it is 40 x 40\)")):
        tiny.staged(awkward, {"bitsandbytes": {"bits": 4}})


def test_layers_left_out_by_a_pattern_load_as_they_are(originals: dict[str, Path], tmp_path: Path) -> None:
    stages = {"bitsandbytes": {"skip": ["*.layer.0.*"]}}
    tiny.optimize(originals["bert"], tmp_path / "artifact", stages)
    model = load(tmp_path / "artifact")
    query = "attention.self.query.weight"
    assert model.get_parameter(f"bert.encoder.layer.0.{query}").dtype == torch.float32
    assert model.get_parameter(f"bert.encoder.layer.1.{query}").dtype == torch.int8
    assert answer(model).isfinite().all()


def test_a_bias_is_never_made_into_codes(originals: dict[str, Path], tmp_path: Path) -> None:
    tiny.optimize(originals["bert"], tmp_path / "artifact", {"bitsandbytes": {"roles": ["linear", "bias", "norm"]}})
    tiny.optimize(originals["bert"], tmp_path / "plain", {"bitsandbytes": {}})
    assert (tmp_path / "artifact" / "model.safetensors").read_bytes() == (
        tmp_path / "plain" / "model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_a_checkpoint_of_the_base_model(tmp_path: Path, kind: str) -> None:
    """Its names lack the prefix; so do those of the codes and scales, and transformers adds it to them as well."""
    original = tiny.save(tiny.bert(), tmp_path / "model")
    path = original / "model.safetensors"
    expected = tiny.optimize(original, tmp_path / "with", {"bitsandbytes": SETTINGS[kind]})
    save_file({name.removeprefix("bert."): tensor for name, tensor in load_file(path).items()}, path)
    found = tiny.optimize(original, tmp_path / "without", {"bitsandbytes": SETTINGS[kind]})
    assert found.parameters == expected.parameters
    assert torch.equal(answer(load(tmp_path / "without")), answer(load(tmp_path / "with")))


def test_a_value_beyond_float16_is_refused_with_a_remedy_that_this_stage_knows(tmp_path: Path) -> None:
    original = tiny.save(tiny.bert(), tmp_path / "model")
    path, name = original / "model.safetensors", "bert.pooler.dense.weight"
    state = load_file(path)
    state[name][0, 0] = 1e6
    save_file(state, path)
    at = tiny.staged(original, {"bitsandbytes": {}})
    with pytest.raises(StageError) as caught:
        tiny.values(at)
    assert str(caught.value) == (
        f"{name}: its largest value 1e+06 is beyond float16's 65504; leave it out with skip: ['{name}']"
    )


@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_with_the_rest_in_half_precision(originals: dict[str, Path], tmp_path: Path, kind: str, dtype: str) -> None:
    stages = {"bitsandbytes": SETTINGS[kind], "cast": {"dtype": dtype, "compute": "stored"}}
    tiny.optimize(originals["bert"], tmp_path / "artifact", stages)
    model = load(tmp_path / "artifact")
    assert model.dtype == getattr(torch, dtype)
    logits = answer(model)
    assert logits.isfinite().all()
    tiny.optimize(originals["bert"], tmp_path / "float32", {"bitsandbytes": SETTINGS[kind]})
    assert torch.allclose(logits.float(), answer(load(tmp_path / "float32")), atol=0.5)


def test_an_original_stored_in_half_precision_but_meant_for_float32(originals: dict[str, Path], tmp_path: Path) -> None:
    """What `cast` with compute: float32 leaves may be the original of another run."""
    tiny.optimize(originals["bert"], tmp_path / "half", {"cast": {}})
    tiny.optimize(tmp_path / "half", tmp_path / "artifact", {"bitsandbytes": {}})
    model = load(tmp_path / "artifact")
    assert model.dtype == torch.float16
    assert answer(model).isfinite().all()


@pytest.mark.parametrize("kind", ["int8", "nf4"])
@pytest.mark.parametrize("half", ["bert.encoder.layer.0", "bert.embeddings", "classifier"])
@pytest.mark.parametrize("format_", ["dense", "packed"])
def test_an_original_of_several_dtypes(tmp_path: Path, kind: str, half: str, format_: str) -> None:
    mixed = tiny.bert()
    mixed.get_submodule(half).half()
    original = tiny.save(mixed, tmp_path / "model")
    expected = tiny.save(mixed.float(), tmp_path / "float32")
    tiny.optimize(original, tmp_path / "artifact", {"bitsandbytes": SETTINGS[kind]}, format=format_)
    tiny.optimize(expected, tmp_path / "expected", {"bitsandbytes": SETTINGS[kind]}, format=format_)
    model = optimizer.load(tmp_path / "artifact")
    assert json.loads((tmp_path / "artifact" / "config.json").read_text())["dtype"] == "float32"
    assert {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()} == {torch.float32}
    assert torch.equal(answer(model), answer(optimizer.load(tmp_path / "expected")))


def kept(model: PreTrainedModel) -> dict[str, str]:
    return {name: reason for name, reason in linear_modules(model, has_head=True).items() if reason}


def test_heads_of_each_architecture() -> None:
    assert kept(tiny.bert()) == {"classifier": "it is the head"}
    assert kept(tiny.bert().base_model) == {}
    assert kept(tiny.gpt2()) == {"lm_head": "it is the output"}
    assert kept(tiny.vit()) == {"classifier": "it is the head"}
    assert kept(tiny.siglip())["classifier"] == "it is the head"  # beside a model that no prefix names
    t5 = kept(tiny.t5())
    assert t5["lm_head"] == "it is the output"
    assert t5["encoder.block.0.layer.1.DenseReluDense.wo"] == "the model keeps it in float32"


HALF = {"stage": "cast", "dtype": "float16", "compute": "stored"}


@pytest.mark.parametrize("stored", [torch.float32, torch.float16])
@pytest.mark.parametrize(
    "stages", [{"bitsandbytes": {}}, {"bitsandbytes": {}, "half": HALF}, {"half": HALF, "bitsandbytes": {}}]
)
def test_a_model_that_keeps_layers_in_float32(
    tmp_path: Path, stages: dict[str, dict[str, Any]], stored: torch.dtype
) -> None:
    """As transformers does for the float16 model: beside bitsandbytes it loads them as they are stored."""
    original = tiny.save(tiny.t5().to(stored), tmp_path / "model")
    tiny.optimize(original, tmp_path / "artifact", stages)
    model = load(tmp_path / "artifact")
    with torch.no_grad():
        logits = model(**tiny.INPUTS, decoder_input_ids=tiny.INPUTS["input_ids"]).logits
    assert logits.isfinite().all()
    layer = model.encoder.block[0].layer
    assert layer[1].DenseReluDense.wo.weight.dtype == torch.float32
    assert layer[1].DenseReluDense.wi.weight.dtype == torch.int8
    assert layer[0].layer_norm.weight.dtype == (torch.float16 if "half" in stages else stored) == model.dtype


def test_no_weight_is_read_beforehand(originals: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("a weight was read")

    monkeypatch.setattr(Checkpoint, "weights_of", never)
    lines: list[str] = []
    at = tiny.staged(originals["bert"], {"bitsandbytes": {}}, lines.append)
    assert at.outline.config["dtype"] == "float32"
    assert lines[-1].startswith("bitsandbytes: bitsandbytes on 13 of ")  # all linear ones but the head


@pytest.mark.parametrize("kind", SETTINGS)
def test_restored_it_is_near_the_original(originals: dict[str, Path], kind: str) -> None:
    """In the checkpoint's own layout, which for GPT-2 is not that of bitsandbytes."""
    before = load_file(originals["gpt2"] / "model.safetensors")
    at = tiny.staged(originals["gpt2"], {"bitsandbytes": SETTINGS[kind]})
    weights = [weight for shard in at.original.shards for weight in at.stream(shard)]
    quantized = [weight for weight in weights if isinstance(weight.stored, Parts)]
    assert len(quantized) == 8
    for weight in quantized:
        original = before[weight.name]
        error = (weight.tensor - original).abs().max() / original.abs().max()
        assert weight.tensor.shape == original.shape
        assert 0 < error < (0.01 if kind == "int8" else 0.25)
