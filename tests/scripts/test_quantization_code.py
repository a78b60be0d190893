"""The guide's optimizing script: its flags and defaults, what it leaves, what it refuses."""

import importlib.util
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import tiny
import torch
from command_line import one_line
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

import optimizer
from optimizer.errors import OptimizerError
from optimizer.manifest import verify
from optimizer.yaml import load

# The guide's table of parameters.
GUIDE = {
    "model_path": inspect.Parameter.empty,
    "output_path": None,
    "pruning": True,
    "pruning_amount": 0.3,
    "use_bnb": True,
    "compress": True,
    "threshold": 1e-3,
}
AT_DEFAULTS = ("--pruning", "--pruning_amount", "0.3", "--use_bnb", "--compress", "--threshold", "1e-3")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def shared(tiny_model: Callable[..., Path]) -> Path:
    """A classifier with its tokenizer, not to be changed."""
    return tiny_model("sequence-classification")


@pytest.fixture
def model(tiny_model: Callable[..., Path], tmp_path: Path) -> Path:
    """A classifier with its tokenizer, of this test's own."""
    return tiny_model("sequence-classification", tmp_path / "model")


@pytest.fixture
def quantize(run_script: Run) -> Run:
    """Run the script on a model: (exit code, stdout, stderr)."""

    def run(model: Path, *arguments: str | Path) -> tuple[int, str, str]:
        return run_script("quantization_code", "--model_path", str(model), *map(str, arguments))

    return run


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def stages(artifact: Path) -> dict[str, Any]:
    """What the artifact says it was made with."""
    found: dict[str, Any] = load(artifact / "recipe.yaml")["stages"]
    return found


def test_the_functions_defaults_are_the_guides(script: Callable[[str], ModuleType]) -> None:
    given = inspect.signature(script("quantization_code").apply_quantization).parameters
    assert {name: given[name].default for name in GUIDE} == GUIDE


def test_the_help_names_every_flag_of_the_guide(run_script: Run) -> None:
    code, out, _ = run_script("quantization_code", "--help")
    assert code == 0
    switches = [name for name, default in GUIDE.items() if default is True]
    for flag in [*GUIDE, *(f"no-{name}" for name in switches)]:
        assert f"--{flag}" in out


def test_the_defaults_are_the_guides_and_the_result_is_complete(quantize: Run, shared: Path, tmp_path: Path) -> None:
    place = tmp_path / "out"
    code, out, err = quantize(shared, "--output_path", place)
    assert (code, err) == (0, "")
    made = stages(place)
    assert list(made) == ["prune", "threshold", "quantize", "bitsandbytes", "cast"]
    assert made["prune"]["amount"] == 0.3
    assert made["threshold"]["value"] == 1e-3
    assert made["bitsandbytes"]["bits"] == 8
    assert made["cast"]["dtype"] == "float16"
    assert verify(place).format == "packed"
    expected = {"model.safetensors", "model_optimized.pt", "config.json", "tokenizer.json", "tokenizer_config.json"}
    assert expected <= {path.name for path in place.iterdir()}
    *_, first, second = out.splitlines()
    assert first == "import optimizer"
    assert second == f'model = optimizer.load("{place}")'


def test_flags_written_out_at_their_defaults_give_the_same_bytes(quantize: Run, shared: Path, tmp_path: Path) -> None:
    assert quantize(shared, "--output_path", tmp_path / "short")[0] == 0
    assert quantize(shared, "--output_path", tmp_path / "long", *AT_DEFAULTS, "--pt", "--format", "packed")[0] == 0
    assert verify(tmp_path / "short") == verify(tmp_path / "long")


@pytest.mark.parametrize(
    ("flags", "changed"),
    [
        (["--pruning_amount", "0.5"], ("prune", "amount", 0.5)),
        (["--threshold", "1e-4"], ("threshold", "value", 1e-4)),
        (["--no-pruning"], ("prune", None, None)),
        (["--no-compress"], ("threshold", None, None)),
        (["--no-use_bnb"], ("bitsandbytes", None, None)),
    ],
)
def test_each_flag_changes_its_own_stage(
    quantize: Run, shared: Path, tmp_path: Path, flags: list[str], changed: tuple[str, str | None, float | None]
) -> None:
    assert quantize(shared, "--output_path", tmp_path / "out", *flags)[0] == 0
    made = stages(tmp_path / "out")
    label, setting, value = changed
    assert (label in made) == (setting is not None)
    if setting is not None:
        assert made[label][setting] == value
    others = {"prune", "threshold", "bitsandbytes", "cast"} - {label}
    assert others <= set(made)


def test_dense_loads_with_plain_from_pretrained_as_printed(quantize: Run, shared: Path, tmp_path: Path) -> None:
    place = tmp_path / "out"
    code, out, _ = quantize(shared, "--output_path", place, "--format", "dense")
    assert code == 0
    *_, first, second = out.splitlines()
    assert first == "from transformers import AutoModelForSequenceClassification"
    assert second == f'model = AutoModelForSequenceClassification.from_pretrained("{place}")'
    config = json.loads((place / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == "bitsandbytes"
    model = AutoModelForSequenceClassification.from_pretrained(place)
    assert "Linear8bitLt" in {type(module).__name__ for module in model.modules()}
    with torch.no_grad():
        logits = model(**tiny_inputs()).logits
    assert logits.shape == (2, 3)
    assert logits.isfinite().all()


def tiny_inputs() -> dict[str, torch.Tensor]:
    return {"input_ids": tiny.INPUTS["input_ids"] % 20}  # the vocabulary of the shared classifier is small


def test_without_pt_everything_else_is_the_same(quantize: Run, shared: Path, tmp_path: Path) -> None:
    assert quantize(shared, "--output_path", tmp_path / "with")[0] == 0
    assert quantize(shared, "--output_path", tmp_path / "without", "--no-pt")[0] == 0
    one, other = verify(tmp_path / "with").files, verify(tmp_path / "without").files
    assert set(one) - set(other) == {"model_optimized.pt"}
    assert one["model.safetensors"] == other["model.safetensors"]


@pytest.mark.parametrize("output_format", ["dense", "packed"])
def test_all_switched_off_is_float16_exactly(quantize: Run, shared: Path, tmp_path: Path, output_format: str) -> None:
    place = tmp_path / "out"
    off = ("--no-pruning", "--no-use_bnb", "--no-compress")
    assert quantize(shared, "--output_path", place, *off, "--format", output_format)[0] == 0
    original = load_file(shared / "model.safetensors")
    pickled = torch.load(place / "model_optimized.pt", weights_only=True)
    assert pickled.keys() == original.keys()
    for name, tensor in original.items():
        assert pickled[name].dtype == torch.float16
        assert torch.equal(pickled[name], tensor.half())
    for name, parameter in optimizer.load(place).named_parameters():
        assert torch.equal(parameter.float(), original[name].half().float())


def test_without_an_output_the_original_is_replaced_and_kept(quantize: Run, model: Path) -> None:
    before = contents(model)
    code, out, _ = quantize(model)
    assert code == 0
    assert verify(model).format == "packed"
    kept = model.with_name("model.original")
    assert f"the original is kept as {kept}" in out
    assert contents(kept) == before
    assert {path.name for path in model.parent.iterdir()} == {"model", "model.original"}


def test_the_original_as_output_is_kept_too(quantize: Run, model: Path) -> None:
    before = contents(model)
    assert quantize(model, "--output_path", model)[0] == 0
    assert contents(model.with_name("model.original")) == before


def test_an_artifact_in_the_outputs_place_is_replaced(quantize: Run, shared: Path, tmp_path: Path) -> None:
    assert quantize(shared, "--output_path", tmp_path / "out")[0] == 0
    assert quantize(shared, "--output_path", tmp_path / "out", "--no-pruning")[0] == 0
    assert "prune" not in stages(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_anything_else_in_the_outputs_place_is_left_alone(quantize: Run, shared: Path, tmp_path: Path) -> None:
    place = tmp_path / "out"
    place.mkdir()
    (place / "thesis.txt").write_text("years of work")
    code, out, err = quantize(shared, "--output_path", place)
    assert (code, out) == (2, "")
    assert (
        one_line(err) == f"quantization_code: {place}: exists and is no artifact of this program; write another path\n"
    )
    assert contents(place) == {"thesis.txt": b"years of work"}


@pytest.fixture
def no_bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec

    def without(name: str, package: str | None = None) -> Any:
        return None if name == "bitsandbytes" else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without)


@pytest.mark.usefixtures("no_bitsandbytes")
def test_without_bitsandbytes_it_says_what_to_do(quantize: Run, model: Path) -> None:
    before = contents(model)
    code, out, err = quantize(model)
    assert (code, out) == (2, "")
    assert "pip install 'transformer-optimizer[bitsandbytes]'" in one_line(err)
    assert err.endswith("; or write --no-use_bnb\n")
    assert contents(model) == before
    code, _, err = quantize(model, "--no-use_bnb")
    assert (code, err) == (0, "")
    assert "bitsandbytes" not in stages(model)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--pruning_amount", "1.5"], "stages.prune.amount: 1.5"),
        (["--threshold", "-1"], "stages.threshold.value: -1"),
    ],
)
def test_a_wrong_value_is_one_line(quantize: Run, shared: Path, tmp_path: Path, flags: list[str], said: str) -> None:
    code, out, err = quantize(shared, "--output_path", tmp_path / "out", *flags)
    assert (code, out) == (2, "")
    assert said in one_line(err)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["nowhere", "nowhere/deeper"])
def test_a_missing_model_is_one_line(quantize: Run, tmp_path: Path, name: str) -> None:
    code, out, err = quantize(tmp_path / name, "--output_path", tmp_path / "out")
    assert (code, out) == (2, "")
    assert f"'{tmp_path / name}' is no directory" in one_line(err)
    assert not list(tmp_path.iterdir())


def test_from_python_it_returns_the_model_loaded(
    script: Callable[[str], ModuleType], shared: Path, tmp_path: Path
) -> None:
    made = script("quantization_code").apply_quantization(str(shared), tmp_path / "out", pruning_amount=0.4)
    assert stages(tmp_path / "out")["prune"]["amount"] == 0.4
    assert not made.training
    again = optimizer.load(tmp_path / "out")
    with torch.no_grad():
        assert torch.equal(made(**tiny_inputs()).logits, again(**tiny_inputs()).logits)


def test_from_python_an_error_is_raised(script: Callable[[str], ModuleType], tmp_path: Path) -> None:
    with pytest.raises(OptimizerError, match="is no directory"):
        script("quantization_code").apply_quantization(tmp_path / "nowhere")


@pytest.mark.parametrize("place", ["/", "/.."])
def test_the_root_of_the_file_system_is_no_place_for_a_model(quantize: Run, shared: Path, place: str) -> None:
    code, out, err = quantize(shared, "--output_path", place)
    assert (code, out) == (2, "")
    assert one_line(err) == "quantization_code: /: is the root of the file system; write a folder below it\n"
