"""An artifact is loaded as what was written, or in one line not at all: every kind of fault, and both ways in."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BertForSequenceClassification

import optimizer
from optimizer.errors import ArtifactError, ModelError, OptimizerError, RecipeError
from optimizer.manifest import read_manifest
from optimizer.model.shards import INDEX, SINGLE

RECIPES: dict[str, tuple[str, str]] = {
    "compact": ("compact", "packed"),
    "balanced": ("balanced", "packed"),
    "nf4 packed": ("nf4", "packed"),
    "fp16": ("fp16", "dense"),
    "int8": ("int8", "dense"),
    "nf4": ("nf4", "dense"),
}
PACKED = [name for name, (_, format) in RECIPES.items() if format == "packed"]
LAYER = "bert.encoder.layer.0.attention.self"
QUERY, KEY, BIAS, OTHER_BIAS = (
    f"{LAYER}.query.weight",
    f"{LAYER}.key.weight",
    f"{LAYER}.query.bias",
    f"{LAYER}.key.bias",
)
Tensors = dict[str, torch.Tensor]
LOADS: dict[str, Callable[[Path], Any]] = {
    "load": optimizer.load,
    "from_pretrained": BertForSequenceClassification.from_pretrained,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The artifact of a recipe, not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    model = tiny.bert()
    with torch.no_grad():
        for parameter in model.parameters():  # biases are zeros, which could be swapped unseen
            parameter += 0.1 * torch.randn_like(parameter)
    original = tiny.save(model, folder / "original")
    (original / "tokenizer.json").write_text("{}")

    def make(name: str) -> Path:
        recipe, output_format = RECIPES[name]
        if not (folder / name).exists():
            tiny.shipped(original, folder / name, recipe, f"format={output_format}")
        return folder / name

    return make


@pytest.fixture
def artifact(made: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of it."""
    return lambda name: Path(shutil.copytree(made(name), tmp_path / "artifact"))


def rewrite(directory: Path, change: Callable[[Tensors], object]) -> Path:
    """Write the weights again after `change`."""
    path = directory / SINGLE
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})
    return path


def refusal(load: Callable[[Path], Any], directory: Path) -> str:
    with pytest.raises(OptimizerError) as caught:
        load(directory)
    assert "\n" not in str(caught.value)
    return str(caught.value).removesuffix("; make the artifact again")


def swapped(first: str, second: str) -> Callable[[Tensors], object]:
    def swap(tensors: Tensors) -> None:
        tensors[first], tensors[second] = tensors[second].clone(), tensors[first].clone()

    return swap


def renamed(name: str, other: str) -> Callable[[Tensors], object]:
    return lambda tensors: tensors.update({other: tensors.pop(name)})


def reshaped(tensors: Tensors) -> None:
    tensors[BIAS] = tensors[BIAS].reshape(2, -1)


def retyped(tensors: Tensors) -> None:
    tensors[BIAS] = tensors[BIAS].view(torch.int16 if tensors[BIAS].itemsize == 2 else torch.int32)


def altered(name: str, place: int) -> Callable[[Tensors], object]:
    def alter(tensors: Tensors) -> None:
        raw = tensors[name].contiguous().view(torch.uint8).reshape(-1)
        raw[place] ^= 1
        tensors[name] = raw.view(tensors[name].dtype).reshape(tensors[name].shape)

    return alter


FAULTS: dict[str, tuple[Callable[[Tensors], object], str]] = {
    "missing": (lambda tensors: tensors.pop(BIAS), f"{{directory}}: {BIAS}: is missing from the weights"),
    "matrix missing": (lambda tensors: tensors.pop(QUERY), f"{{directory}}: {QUERY}: is missing from the weights"),
    "unexpected": (
        lambda tensors: tensors.update({"bert.more.weight": torch.arange(3)}),
        "{path}: bert.more.weight: is none of the tensors that were written",
    ),
    "renamed": (renamed(BIAS, "bert.other"), f"{{path}}: bert.other: was written as {BIAS}"),
    "matrix renamed": (renamed(QUERY, "bert.other"), f"{{path}}: bert.other: was written as {QUERY}"),
    "swapped": (swapped(BIAS, OTHER_BIAS), f"{{path}}: {OTHER_BIAS}: holds the values of {BIAS}"),
    "matrices swapped": (swapped(QUERY, KEY), f"{{path}}: {KEY}: holds the values of {QUERY}"),
    "reshaped": (reshaped, f"{{path}}: {BIAS}: is F{{bits}} of shape [2, 32], written were F{{bits}} and [64]"),
    "of another dtype": (retyped, f"{{path}}: {BIAS}: is I{{bits}} of shape [64], written were F{{bits}} and [64]"),
    "vector altered": (altered(BIAS, 5), f"{{path}}: {BIAS}: holds other values than were written"),
    "matrix altered": (altered(QUERY, -9), f"{{path}}: {QUERY}: holds other values than were written"),
}


def spoilt(directory: Path, fault: str) -> str:
    """Do a fault to an artifact; what is then to be said."""
    change, said = FAULTS[fault]
    bits = 8 * load_file(directory / SINGLE)[BIAS].itemsize
    return said.format(path=rewrite(directory, change), directory=directory, bits=bits)


def answer(model: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(**tiny.INPUTS).logits
    return logits


# tensors


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", PACKED)
def test_a_packed_artifact_with_a_fault_is_refused(
    artifact: Callable[[str], Path], name: str, fault: str, load: Callable[[Path], Any]
) -> None:
    directory = artifact(name)
    expected = spoilt(directory, fault)
    assert refusal(load, directory) == expected


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", sorted(RECIPES.keys() - PACKED))
def test_so_is_a_dense_one_by_load(artifact: Callable[[str], Path], name: str, fault: str) -> None:
    directory = artifact(name)
    expected = spoilt(directory, fault)
    assert refusal(optimizer.load, directory) == expected


@pytest.mark.parametrize("name", RECIPES)
def test_the_same_tensors_in_a_file_written_otherwise_are_loaded(artifact: Callable[[str], Path], name: str) -> None:
    """The header's order and metadata say nothing; `full` goes by the files."""
    directory = artifact(name)
    expected = answer(optimizer.load(directory, verify="full"))
    path = rewrite(directory, lambda tensors: None)
    tensors = load_file(path)
    save_file(tensors, path, {"format": "pt", "written": "by another program"})
    assert torch.equal(answer(optimizer.load(directory)), expected)
    said = refusal(lambda place: optimizer.load(place, verify="full"), directory)
    assert said == f"{path}: is not what the manifest says"


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_a_header_that_is_cut_off_is_one_line(artifact: Callable[[str], Path], load: Callable[[Path], Any]) -> None:
    directory = artifact("compact")
    path = directory / SINGLE
    path.write_bytes(path.read_bytes()[:100])
    assert refusal(load, directory).startswith(f"{path}: cannot be read (")


def test_nothing_random_is_made_before_it_is_refused(
    artifact: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("compact", "fp16"):
        directory = artifact(name)
        rewrite(directory, lambda tensors: tensors.pop(QUERY))
        with monkeypatch.context() as patched:
            patched.setattr(BertForSequenceClassification, "_load_pretrained_model", None)
            assert "is missing" in refusal(optimizer.load, directory)
        shutil.rmtree(directory)


def test_shards_and_merged_experts(tmp_path: Path) -> None:
    original = tiny.save(tiny.mixtral(), tmp_path / "model", shard_size="100KB")
    tiny.optimize(original, tmp_path / "artifact", {"quantize": {"bits": 8}}, format="packed")
    optimizer.load(tmp_path / "artifact")
    shards = sorted((tmp_path / "artifact").glob("*.safetensors"))
    name, path = next(
        (name, path) for path in shards for name in load_file(path) if name.endswith("experts.1.w1.weight")
    )
    other, place = next(
        (name, path) for path in shards for name in load_file(path) if name.endswith("experts.2.w1.weight")
    )
    stored = load_file(place)[other]
    tensors = load_file(path)
    save_file(tensors | {name: stored}, path, {"format": "pt"})
    for load in (optimizer.load, AutoModelForCausalLM.from_pretrained):
        assert refusal(load, tmp_path / "artifact") == f"{path}: {name}: holds the values of {other}"


# files


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
@pytest.mark.parametrize("name", PACKED)
def test_a_config_that_asks_for_other_layers_is_refused(
    artifact: Callable[[str], Path], name: str, load: Callable[[Path], Any]
) -> None:
    directory = artifact(name)
    for changes in ({"num_hidden_layers": 3}, {"num_attention_heads": 4}, {"layer_norm_eps": 0.1}):
        sound = (directory / "config.json").read_bytes()
        tiny.change_config(directory, **changes)
        assert refusal(load, directory) == f"{directory / 'config.json'}: is not what the manifest says"
        (directory / "config.json").write_bytes(sound)
    load(directory)


@pytest.mark.parametrize("name", RECIPES)
def test_a_config_that_is_no_json_is_one_line(artifact: Callable[[str], Path], name: str) -> None:
    directory = artifact(name)
    (directory / "config.json").write_text("{")
    assert refusal(optimizer.load, directory) == f"{directory / 'config.json'}: is not what the manifest says"


def test_generation_settings_are_read_and_checked(tmp_path: Path) -> None:
    original = tiny.save(tiny.gpt2(), tmp_path / "model")
    tiny.optimize(original, tmp_path / "artifact", {"cast": {}}, format="packed")
    path = tmp_path / "artifact" / "generation_config.json"
    path.write_text(path.read_text().replace("}", ', "temperature": 9.0}'))
    for load in (optimizer.load, AutoModelForCausalLM.from_pretrained):
        assert refusal(load, tmp_path / "artifact") == f"{path}: is not what the manifest says"


def test_other_files_are_checked_where_it_is_asked(artifact: Callable[[str], Path]) -> None:
    directory = artifact("compact")
    (directory / "tokenizer.json").write_text("{ }")
    optimizer.load(directory)
    said = refusal(lambda place: optimizer.load(place, verify="full"), directory)
    assert said == f"{directory / 'tokenizer.json'}: is not what the manifest says"


def test_full_needs_a_manifest_and_other_words_are_refused(artifact: Callable[[str], Path]) -> None:
    directory = artifact("fp16")
    (directory / "manifest.json").unlink()
    optimizer.load(directory)
    with pytest.raises(ArtifactError, match=r"is no artifact \(it holds no manifest.json\)$"):
        optimizer.load(directory, verify="full")
    with pytest.raises(RecipeError, match=r"^verify: 'ful': is none of loaded, full; write verify='full'$"):
        optimizer.load(directory, verify="ful")  # type: ignore[arg-type]


# markers


@pytest.mark.parametrize("name", PACKED)
def test_a_marker_that_was_taken_away(artifact: Callable[[str], Path], name: str) -> None:
    directory = artifact(name)
    config = json.loads((directory / "config.json").read_text())
    del config["quantization_config"]
    (directory / "config.json").write_text(json.dumps(config))
    assert refusal(optimizer.load, directory) == f"{directory / 'config.json'}: is not what the manifest says"
    with pytest.raises(ValueError, match="packed; write import optimizer first"):
        BertForSequenceClassification.from_pretrained(directory)
    (directory / "manifest.json").unlink()
    said = refusal(optimizer.load, directory)
    assert said.startswith(f"{directory / SINGLE}: ")
    assert said.endswith(
        f"is packed, but {directory / 'config.json'} does not say so; put back the config.json that was written with it"
    )


def test_a_damaged_manifest_is_no_reason_to_check_nothing(artifact: Callable[[str], Path]) -> None:
    directory = artifact("compact")
    path = directory / "manifest.json"
    text = path.read_text()
    for damaged in (text[:-3], text.replace('"files"', '"fules"'), text.replace('"tensors": {', '"tensors": [{')):
        path.write_text(damaged)
        for load in LOADS.values():
            assert refusal(load, directory).startswith(f"{path}: is no manifest of an artifact (")


# artifacts of before there were lists of tensors


@pytest.mark.parametrize("name", RECIPES)
def test_without_a_list_every_file_is_checked(artifact: Callable[[str], Path], name: str) -> None:
    directory = artifact(name)
    path = directory / "manifest.json"
    values = json.loads(path.read_text())
    del values["tensors"]
    path.write_text(json.dumps(values))
    loads = LOADS if name in PACKED else {"load": optimizer.load}
    for load in loads.values():
        load(directory)
    rewrite(directory, swapped(BIAS, OTHER_BIAS))
    for load in loads.values():
        assert refusal(load, directory) == f"{directory / SINGLE}: is not what the manifest says"


# what is no artifact


@pytest.mark.parametrize("name", ["../outside.safetensors", "deeper/model.safetensors", "/etc/hosts"])
@pytest.mark.parametrize("index", [INDEX, "model.safetensors.index.fp16.json", "pytorch_model.bin.index.json"])
def test_an_index_that_leads_out_of_a_directory_is_not_followed(tmp_path: Path, index: str, name: str) -> None:
    original = tiny.save(tiny.bert(), tmp_path / "model")
    shutil.move(original / SINGLE, tmp_path / "outside.safetensors")
    weight_map = dict.fromkeys(load_file(tmp_path / "outside.safetensors"), name)
    (original / index).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    with pytest.raises(ModelError, match=f"names '{name}', which is outside the model's directory$"):
        optimizer.load(original)


def test_an_index_of_a_packed_artifact_that_leads_out_is_not_followed(tmp_path: Path) -> None:
    original = tiny.save(tiny.bert(), tmp_path / "model", shard_size="100KB")
    tiny.optimize(original, tmp_path / "artifact", {"quantize": {"bits": 8}}, format="packed")
    first = min((tmp_path / "artifact").glob("*.safetensors"))
    shutil.move(first, tmp_path / first.name)
    index = tmp_path / "artifact" / INDEX
    index.write_text(index.read_text().replace(first.name, f"../{first.name}"))
    for load in LOADS.values():
        assert refusal(load, tmp_path / "artifact") == f"{index}: is not what the manifest says"
    (tmp_path / "artifact" / "manifest.json").unlink()
    assert refusal(optimizer.load, tmp_path / "artifact").endswith("which is outside the model's directory")


def test_a_strangers_manifest_says_nothing(tmp_path: Path) -> None:
    original = tiny.save(tiny.bert(), tmp_path / "model")
    for text in ('{"files": 3}', "no json", '{"tensors": {}}'):
        (original / "manifest.json").write_text(text)
        optimizer.load(original)


# what the manifest lists


@pytest.mark.parametrize("name", RECIPES)
def test_every_tensor_is_listed_with_what_it_restores_to(
    made: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    from optimizer.formats import format_of
    from optimizer.integrity import describe

    directory = made(name)
    listed = read_manifest(directory).tensors
    assert listed is not None
    stored = load_file(directory / SINGLE)
    restored = dict(format_of(directory).plain(directory))
    assert set(listed) == set(stored) == set(restored)
    for tensor, said in listed.items():
        other = said.pop("stored_sha256", None)
        assert said == describe(restored[tensor])
        assert (other is not None) == (tensor in stored and stored[tensor].shape != restored[tensor].shape)
        assert other in (None, describe(stored[tensor])["sha256"])
