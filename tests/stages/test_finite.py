"""Weights that hold NaN or infinity: refused by name where they come from, unless they are meant."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from command_line import rows
from safetensors.torch import load_file, save_file

from optimizer.errors import ModelError, RecipeError, StageError
from optimizer.model.weight import Codes, Weight

NAME = "bert.encoder.layer.1.output.dense.weight"
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A model with two values that are no numbers."""
    original = tiny.save(tiny.bert(), tmp_path / "model")
    weights = load_file(original / "model.safetensors")
    weights[NAME][0, :2] = torch.tensor([math.nan, -math.inf])
    save_file(weights, original / "model.safetensors", metadata={"format": "pt"})
    return original


@pytest.mark.parametrize("recipe", ["fp16", "compact", "baseline"])
def test_the_original_is_refused_by_the_weights_name(
    optimizer: Command, broken: Path, tmp_path: Path, recipe: str
) -> None:
    code, _, said = optimizer(f"recipe={recipe}", f"model.path={broken}", "evaluation=none")
    assert code == 1, said
    (row,) = rows(tmp_path / "outputs")
    assert row["status"] == "failed"
    assert row["error"] == (
        f"{NAME}: 2 of its values are NaN or infinite in the original; mend the model, or write "
        f"allow_nonfinite=['{NAME}'] if they are meant"
    )
    assert not list((tmp_path / "outputs").glob("runs/*/artifact*"))


def test_values_that_are_meant_stay(optimizer: Command, broken: Path, tmp_path: Path) -> None:
    words = ["recipe=fp16", "format=dense", f"model.path={broken}", "evaluation=none"]
    code, _, said = optimizer(*words, "allow_nonfinite=['*.output.dense.weight']")
    assert code == 0, said
    (artifact,) = (tmp_path / "outputs").glob("runs/*/artifact")
    stored = load_file(artifact / "model.safetensors")[NAME]
    assert stored[0, 0].isnan()
    assert stored[0, 1] == -math.inf
    assert "allow_nonfinite:\n- '*.output.dense.weight'\n" in (artifact / "recipe.yaml").read_text()
    code, _, said = optimizer(*words, "allow_nonfinite=[classifier.weight]")
    assert code == 1, said


@pytest.mark.parametrize("stored", ["values", "codes"])
def test_a_stage_that_makes_them_is_named(tmp_path: Path, stored: str) -> None:
    at = tiny.staged(tiny.save(tiny.bert(), tmp_path / "model"), {"prune": {"amount": 0.5}})

    def breaking(weight: Weight) -> list[Weight]:
        if stored == "values":
            return [weight.with_tensor(weight.tensor / 0)]
        codes = Codes(torch.ones(weight.tensor.shape, dtype=torch.int8), torch.tensor(math.inf), torch.float32)
        return [weight.with_codes(codes)]

    at = replace(at, transforms=(("divide", frozenset([NAME]), breaking),))
    with pytest.raises(StageError, match=rf"^stages\.divide: {NAME}: \d+ of its values have become NaN or infinite; "):
        tiny.values(at)
    assert not tiny.values(replace(at, allow_nonfinite=(NAME,)))[NAME].isfinite().all()


def test_what_the_model_does_not_know_may_hold_anything(tmp_path: Path) -> None:
    original = tiny.save(tiny.bert(), tmp_path / "model")
    weights = load_file(original / "model.safetensors") | {"mask": torch.full((2, 2), -math.inf)}
    save_file(weights, original / "model.safetensors", metadata={"format": "pt"})
    assert tiny.values(tiny.staged(original, {}))["mask"].isinf().all()


def test_patterns_are_a_list(broken: Path) -> None:
    from optimizer.recipe import parse

    with pytest.raises(
        RecipeError, match=r"^allow_nonfinite: '\*': expected a list of patterns; write allow_nonfinite"
    ):
        parse({"allow_nonfinite": "*"})
    with pytest.raises(ModelError):
        tiny.values(tiny.staged(broken, {}))
