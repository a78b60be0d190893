"""Pruning by what texts show: exactly so many go, answers stay nearer, and recipes without it keep their ids."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from optimizer.calibration.statistics import Linear
from optimizer.errors import RecipeError, StageError
from optimizer.recipe import parse
from optimizer.stages.sparse import sparsegpt, wanda
from tests.stages.test_fisher import divergence, texts, uneven

NAME = "bert.encoder.layer.0.output.dense.weight"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(uneven(), tmp_path_factory.mktemp("sparse") / "model")


def pruned(original: Path, **settings: Any) -> Any:
    return tiny.staged(original, {"prune": settings}, examples=texts)


def layer() -> tuple[torch.Tensor, Linear]:
    """A matrix and inputs that follow from each other."""
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(400, 48, generator=draw) @ torch.randn(48, 48, generator=draw)
    return torch.randn(20, 48, generator=draw).double(), Linear(inputs.T @ inputs / 400, torch.rand(20, generator=draw))


@pytest.mark.parametrize("criterion", ["wanda", "sparsegpt"])
@pytest.mark.parametrize("amount", [0.0, 0.3, 0.5, 0.99])
def test_exactly_so_many_are_zero(original: Path, criterion: str, amount: float) -> None:
    found = tiny.values(pruned(original, amount=amount, criterion=criterion))[NAME]
    wanted = round(amount * found.numel()) if criterion == "sparsegpt" else len(found) * round(amount * found.shape[1])
    assert int((found == 0).sum()) == wanted


@pytest.mark.parametrize("criterion", ["wanda", "sparsegpt"])
def test_a_pattern_is_kept_along_the_inputs(original: Path, criterion: str) -> None:
    found = tiny.values(pruned(original, pattern="2:4", criterion=criterion))[NAME]
    assert bool(((found.reshape(-1, 4) == 0).sum(1) == 2).all())


def test_answers_stay_nearer_the_more_is_known(original: Path) -> None:
    magnitude = divergence(pruned(original, amount=0.4))
    fitted = divergence(pruned(original, amount=0.4, criterion="sparsegpt"))
    assert fitted < 0.7 * magnitude


def test_the_amount_of_a_model_is_shared_out_by_what_the_answers_need(original: Path) -> None:
    found = tiny.values(pruned(original, amount=0.4, criterion="sparsegpt", scope="model"))
    before = tiny.values(tiny.staged(original, {}))
    linear = [name for name in found if name.endswith("weight") and not torch.equal(found[name], before[name])]
    shares = [float((found[name] == 0).double().mean()) for name in linear]
    sizes = [found[name].numel() for name in linear]
    whole = sum(share * size for share, size in zip(shares, sizes, strict=True)) / sum(sizes)
    assert whole == pytest.approx(0.4, abs=1e-3)
    assert max(shares) - min(shares) > 0.05


def test_what_stays_makes_up_for_what_goes() -> None:
    values, known = layer()

    def lost(found: torch.Tensor) -> float:
        error = values - found
        return float((((error @ known.inputs.double()) * error).sum(1) * known.outputs).sum())

    assert lost(sparsegpt(values, known, 0.5)) < 0.7 * lost(wanda(values, known, 0.5))


def test_gpt2_is_pruned_along_its_own_inputs(tmp_path: Path) -> None:
    original = tiny.save(tiny.gpt2(), tmp_path / "model")
    ids = [{"input_ids": text["input_ids"], "attention_mask": text["attention_mask"]} for text in texts(16)]
    at = tiny.staged(original, {"prune": {"pattern": "2:4", "criterion": "wanda"}}, examples=lambda: ids)
    found = tiny.values(at)["transformer.h.0.mlp.c_fc.weight"]
    assert bool(((found.T.reshape(-1, 4) == 0).sum(1) == 2).all())


def test_it_needs_texts(original: Path) -> None:
    with pytest.raises(StageError, match=r"needs calibration texts; write data\.calibration=FILE"):
        tiny.staged(original, {"prune": {"amount": 0.5, "criterion": "wanda"}})


def test_an_unknown_criterion_is_refused() -> None:
    with pytest.raises(RecipeError, match="'magnitude', 'wanda' or 'sparsegpt'"):
        parse({"stages": {"prune": {"amount": 0.5, "criterion": "taylor"}}})


def test_recipes_without_it_keep_their_ids() -> None:
    made = parse({"stages": {"prune": {"amount": 0.5}}}).made_by()
    assert made["stages"]["prune"].keys() == {"stage", "amount", "scope", "pattern"}
