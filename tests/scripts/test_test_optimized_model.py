"""The guide's comparing script: the figures of several models against their original, what it refuses."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from command_line import one_line
from safetensors.torch import load_file, save_file

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def original(tiny_model: Callable[..., Path]) -> Path:
    """A classifier with its tokenizer, not to be changed."""
    return tiny_model("sequence-classification")


@pytest.fixture
def compare(run_script: Run, original: Path) -> Run:
    """Run the script against the original: (exit code, stdout, stderr)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        return run_script("test_optimized_model", "--original", str(original), *arguments)

    return run


def test_sizes_agreement_and_latency_of_each_name(compare: Run, original: Path, tmp_path: Path) -> None:
    made: dict[str, Any] = {
        "half": {"cast": {}},
        "all": {"prune": {"amount": 0.3}, "bitsandbytes": {"bits": 8}, "cast": {"compute": "auto"}},
    }
    for name, stages in made.items():
        tiny.optimize(original, tmp_path / name, stages, format="packed")
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": f"the {word} dog sees"}) + "\n" for word in ("big", "red", "small")))
    named = [f"{name}:{tmp_path / name}" for name in made]
    code, out, err = compare("--optimized", *named, "--data", str(texts))
    assert (code, err) == (0, "")
    heading, *lines = out.splitlines()
    assert " ".join(heading.split()) == "run status MB size agreement 95 % interval texts speed-up ms"
    cells = {line.split()[0]: line.split() for line in lines[:2]}
    whole = (original / "model.safetensors").stat().st_size
    for name in made:
        size = (tmp_path / name / "model.safetensors").stat().st_size
        _, status, megabytes, share, agreement, low, _, high, examples, speedup, *same, latency = cells[name]
        assert status == "ok"
        assert megabytes == f"{size / 1e6:.2f}"
        assert share == f"{size / whole:.1%}"
        assert 0 <= float(low) <= float(agreement) <= float(high) <= 1
        assert examples == "3"
        assert float(speedup.rstrip("x,")) > 0
        assert same in ([], ["as", "fast"])
        assert float(latency) > 0
        assert f"{name}: {tmp_path / name}" in lines
    assert float(cells["half"][4]) == 1
    assert not list(original.glob("*.csv"))


@pytest.mark.parametrize("word", ["half", ":models/half", "half:", ""])
def test_a_word_without_name_or_directory_is_one_line(compare: Run, word: str) -> None:
    code, out, err = compare("--optimized", word)
    assert (code, out) == (2, "")
    assert one_line(err) == (f"test_optimized_model: --optimized: '{word}': write NAME:DIR, such as fp16:models/fp16\n")


def test_a_missing_directory_is_one_line(compare: Run, tmp_path: Path) -> None:
    code, out, err = compare("--optimized", f"half:{tmp_path / 'nowhere'}")
    assert (code, out) == (2, "")
    assert f"'{tmp_path / 'nowhere'}' is no directory" in one_line(err)


def test_a_missing_original_is_one_line(run_script: Run, tmp_path: Path) -> None:
    code, out, err = run_script("test_optimized_model", "--original", f"{tmp_path}/nowhere", "--optimized", "a:b")
    assert (code, out) == (2, "")
    assert "nowhere' is no directory" in one_line(err)


def test_missing_texts_are_one_line(compare: Run, original: Path, tmp_path: Path) -> None:
    code, out, err = compare("--optimized", f"same:{original}", "--data", str(tmp_path / "nowhere.jsonl"))
    assert (code, out) == (2, "")
    assert "nowhere.jsonl' does not exist" in one_line(err)


def test_a_directory_without_a_model_is_one_line(compare: Run, tmp_path: Path) -> None:
    code, out, err = compare("--optimized", f"empty:{tmp_path}")
    assert (code, out) == (2, "")
    assert str(tmp_path) in one_line(err)


def test_a_model_that_cannot_be_measured_is_a_failed_row_and_the_others_are_measured(
    compare: Run, original: Path, tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    stranger = tiny_model("sequence-classification", tmp_path / "stranger", num_labels=5)
    code, out, err = compare("--optimized", f"other:{stranger}", f"same:{original}", "--page", str(tmp_path / "page"))
    assert code == 1
    assert "other: failed: the artifact's answers have the shape" in one_line(err)
    statuses = {line.split()[0]: line.split()[1] for line in out.splitlines()[1:3]}
    assert statuses == {"same": "ok", "other": "failed"}
    assert f"page: {tmp_path / 'page' / 'report.html'}" in out
    assert "stranger" in (tmp_path / "page" / "report.html").read_text()


def test_strangers_directories_are_measured_or_a_failed_row_of_one_line(
    compare: Run, original: Path, tmp_path: Path
) -> None:
    legacy, odd, lacking = (shutil.copytree(original, tmp_path / name) for name in ("legacy", "odd", "lacking"))
    state = load_file(original / "model.safetensors")
    (legacy / "model.safetensors").unlink()
    torch.save(state, legacy / "pytorch_model.bin")
    tiny.change_config(odd, quantization_config="text")
    kept = {name: tensor for name, tensor in state.items() if name != "classifier.weight"}
    save_file(kept, lacking / "model.safetensors", {"format": "pt"})
    code, out, err = compare("--optimized", *(f"{place.name}:{place}" for place in (legacy, odd, lacking)))
    statuses = {line.split()[0]: line.split()[1] for line in out.splitlines()[1:4]}
    assert (code, statuses) == (1, {"legacy": "ok", "odd": "failed", "lacking": "failed"})
    assert err.splitlines() == [
        "odd: failed: AttributeError: 'str' object has no attribute 'to_dict'",
        f"lacking: failed: {lacking}: lacks 1 of its model's weights, which would be random (classifier.weight)",
    ]


def test_the_same_name_twice_is_one_line(compare: Run, original: Path) -> None:
    code, out, err = compare("--optimized", f"same:{original}", f"same:{original}")
    assert (code, out) == (2, "")
    assert "'same' is there twice" in one_line(err)


def test_flags_left_out_are_the_parsers_own_error(compare: Run) -> None:
    code, _, err = compare()
    assert code == 2
    assert "--optimized" in err
