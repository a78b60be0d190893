"""From a command's arguments to plain values: what they refer to, and that nothing is left behind."""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from optimizer.composing import compose
from optimizer.errors import RecipeError


@pytest.fixture
def team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """`team(text, *arguments)` composes a recipe of a team's own."""
    (tmp_path / "team" / "recipe").mkdir(parents=True)

    def composed(text: str, *arguments: str) -> dict[str, Any]:
        (tmp_path / "team" / "recipe" / "ours.yaml").write_text(f"# @package _global_\n{text}")
        (values,) = compose(["--config-dir", str(tmp_path / "team"), "recipe=ours", *arguments])
        return values

    return composed


@pytest.mark.parametrize("arguments", [["recipe=fp16"], ["recipe=no_such"], ["-m", "recipe=fp16", "seed=1,2"]])
@pytest.mark.parametrize("own", [None, "mine"])
def test_the_callers_variables_and_arguments_stay_as_they_were(
    arguments: list[str], own: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HYDRA_FULL_ERROR", "OPTIMIZER_SCRATCH"):
        monkeypatch.delenv(name, raising=False)
        if own:
            monkeypatch.setenv(name, own)
    argv = sys.argv
    with suppress(RecipeError):
        compose(arguments)
    assert {os.environ.get("HYDRA_FULL_ERROR"), os.environ.get("OPTIMIZER_SCRATCH")} == {own}
    assert sys.argv is argv


@pytest.mark.parametrize("used", ["${pruning_amount}", "${oc.decode:'${pruning_amount}'}", "${...pruning_amount}"])
def test_a_knob_may_be_used_in_any_way(used: str, team: Callable[..., dict[str, Any]]) -> None:
    values = team(f'stages: {{prune: {{amount: "{used}"}}}}\n', "pruning_amount=0.4")
    assert values["stages"]["prune"]["amount"] == 0.4


def test_what_only_looks_like_a_knob_uses_none(team: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(RecipeError, match=r"^pruning_amount: the recipe 'ours' does not use it; leave it out$"):
        team('name: "\\\\${pruning_amount}"\nstages: {cast: {}}\n', "pruning_amount=0.4")


def test_a_broken_reference_is_one_line(team: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(RecipeError) as refused:
        team("stages: {prune: {amount: '${pruning_amount'}}\n")
    assert "\n" not in str(refused.value)


def test_a_recipe_may_have_variables_of_its_own_but_none_that_nothing_uses(team: Callable[..., dict[str, Any]]) -> None:
    text = "amounts: {small: 0.2, large: 0.5}\nsize: small\nstages: {prune: {amount: '${amounts.${size}}'}}\n"
    assert team(text)["stages"]["prune"]["amount"] == 0.2
    assert team(text, "size=large")["stages"]["prune"]["amount"] == 0.5
    with pytest.raises(RecipeError, match=r"^recipe: unknown key 'sizes'; "):
        team(f"sizes: small\n{text}")


@pytest.mark.parametrize("word", ["debug=true", "debug=True", "++debug=true", "debug=TRUE"])
def test_debug_shows_the_traceback_however_it_is_written(
    word: str, optimizer: Callable[..., tuple[int, str, str]]
) -> None:
    with pytest.raises(RecipeError, match="no_such"):
        optimizer("recipe=no_such", word)


@pytest.mark.parametrize("words", [["debug=false"], ["debug=true", "debug=false"], ["seed='debug=true'"]])
def test_without_debug_an_error_is_one_line(words: list[str], optimizer: Callable[..., tuple[int, str, str]]) -> None:
    code, _, err = optimizer("recipe=no_such", *words)
    assert code == 2
    assert err.count("\n") == 1


def test_what_a_stage_has_and_a_recipe_does_not_set_is_set_without_a_plus(team: Callable[..., dict[str, Any]]) -> None:
    text = "defaults: [balanced, _self_]\nstages: {early: {stage: prune}}\n"
    values = team(
        text, "stages.prune.skip=[classifier.*]", "stages.early.pattern='2:4'", "search={trials: 3}", "search.by=grid"
    )
    assert values["stages"]["prune"]["skip"] == ["classifier.*"]
    assert values["stages"]["early"] == {"stage": "prune", "pattern": "2:4"}
    assert values["search"] == {"trials": 3, "by": "grid"}
    found = compose(["-m", "recipe=compact", "stages.quantize.roles=[linear],[embedding]"])
    assert [each["stages"]["quantize"]["roles"] for each in found] == [["linear"], ["embedding"]]
    (values,) = compose(
        ["recipe=compact", "format=openvino", "engine.precision=int8_weights", "data.calibration=a.txt"]
    )
    assert values["engine"] == {"precision": "int8_weights"}
    (values,) = compose(["recipe=smallest", "search.by=grid"])
    assert values["search"]["by"] == "grid"


def test_a_misspelt_recipe_that_another_extends_is_named(team: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(RecipeError, match=r"^recipe/ours: recipe: no recipe is called 'balansed'; did you mean 'balan"):
        team("defaults: [balansed, _self_]\n")
