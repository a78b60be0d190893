"""A search chooses on a part of the texts and reports on the rest."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import rows as rows_of

from optimizer.data.calibration import measured
from optimizer.data.texts import DataSettings
from optimizer.errors import RecipeError
from optimizer.recipe import Recipe
from optimizer.rows.row import Row
from optimizer.rows.verdict import judged
from optimizer.search import search
from optimizer.yaml import load

pytest.importorskip("optuna")

WORDS = ["the", "a", "cat", "dog", "bird", "fish", "sees", "likes", "finds", "red", "green", "blue", "big", "small"]


def texts_file(folder: Path, count: int) -> Path:
    """Different texts, so many of them."""
    choose = random.Random(0)
    texts: dict[str, None] = {}
    while len(texts) < count:
        texts[" ".join(choose.choices(WORDS, k=6))] = None
    path = folder / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


class Runs:
    """Rows by formula: what was searched agrees more than what was kept aside."""

    def __init__(self, **held_out: Any) -> None:
        self.recipes: list[Recipe] = []
        self.held_out = {"agreement": 0.985, "agreement_low": 0.97, "agreement_high": 0.993, "examples": 500} | held_out

    def __call__(self, recipes: list[Recipe]) -> list[Row]:
        self.recipes += recipes
        return [self.row(recipe) for recipe in recipes]

    def row(self, recipe: Recipe) -> Row:
        step = recipe.steps[0].stage.model_dump()["step"]
        found: dict[str, Any] = {"agreement": 1 - 0.02 * step, "examples": 700}
        if recipe.data.part == "held_out":
            found = self.held_out
        row = Row(
            run_id=f"{recipe.data.part}-{step}",
            status="ok",
            data="file",
            data_part=recipe.data.part,
            artifact_bytes=round(1000 / step),
            size_ratio=0.1 / step,
            **found,
        )
        return judged(row, recipe.gates)


def go(recipe: dict[str, Any], out: Path, run: Callable[[list[Recipe]], list[Row]]) -> tuple[list[Row], list[str]]:
    lines: list[str] = []
    return search(recipe, run, out, lines.append), lines


def seeking(path: Path, by: str = "tpe", **search: Any) -> dict[str, Any]:
    span = {"low": 0.1, "high": 1.0} if by == "tpe" else [0.1, 0.25, 0.5, 0.75]
    goal = {"minimize": "size_ratio", "by": by, "trials": 4, "ranges": {"stages.quantize.step": span}} | search
    return {
        "name": "seek",
        "stages": {"quantize": {"step": 0.25}},
        "model": {"path": "demo"},
        "data": {"path": str(path), "label": ""},
        "gates": {"agreement": 0.99},
        "search": goal,
    }


@pytest.mark.parametrize("by", ["tpe", "grid", "turns"])
def test_it_chooses_on_one_part_and_the_chosen_is_measured_on_the_other(tmp_path: Path, by: str) -> None:
    runs = Runs()
    found, lines = go(seeking(texts_file(tmp_path, 1200), by), tmp_path / "out", runs)
    assert [recipe.data.part for recipe in runs.recipes] == ["searched"] * 4 + ["held_out"]
    assert {recipe.data.held_out for recipe in runs.recipes} == {500}
    final, best, *_ = found
    assert (final.data_part, final.status) == ("held_out", "ok"), "0.985 may be 0.99 by chance"
    assert best.data_part == "searched"
    assert final.size_ratio == best.size_ratio
    assert runs.recipes[-1].gates.beyond_chance
    assert not runs.recipes[0].gates.beyond_chance
    said = "on 500 texts kept aside, unbiased: agreement 0.9850 (0.9700 to 0.9930), "
    assert f"search: {final.run_id}: {said}{best.agreement:.4f} on those it was chosen by" in lines


def test_what_misses_its_gate_beyond_chance_is_rejected_with_a_remedy(tmp_path: Path) -> None:
    found, lines = go(seeking(texts_file(tmp_path, 1200)), tmp_path / "out", Runs(agreement_high=0.98))
    assert found[0].status == "rejected"
    (line,) = [line for line in lines if "kept aside" in line]
    assert line.endswith("beyond chance, agreement 0.9800 misses the gate 0.99 by 0.0100: ask for more than you need")


def test_where_no_trial_meets_its_gates_nothing_is_measured_on_what_is_kept_aside(tmp_path: Path) -> None:
    runs = Runs()
    recipe = seeking(texts_file(tmp_path, 1200)) | {"gates": {"agreement": 0.9999}}
    found, _ = go(recipe, tmp_path / "out", runs)
    assert {row.status for row in found} == {"rejected"}
    assert {recipe.data.part for recipe in runs.recipes} == {"searched"}


def test_too_few_texts_are_said_to_be_and_all_are_used(tmp_path: Path) -> None:
    runs = Runs()
    found, lines = go(seeking(texts_file(tmp_path, 999)), tmp_path / "out", runs)
    assert {row.data_part for row in found} == {None}
    assert lines[0].startswith("search: 999 texts are too few to keep 500 aside: it chooses and reports on the same")


def test_who_wants_none_kept_aside_gets_none_and_no_word_of_it(tmp_path: Path) -> None:
    runs = Runs()
    _, lines = go(seeking(texts_file(tmp_path, 1200), holdout=0), tmp_path / "out", runs)
    assert {recipe.data.part for recipe in runs.recipes} == {None}
    assert not any("aside" in line for line in lines)


def test_a_model_that_is_asked_no_texts_has_none_kept_aside(tmp_path: Path, tiny_model) -> None:
    recipe = seeking(texts_file(tmp_path, 1200)) | {"model": {"path": str(tiny_model("image-classification"))}}
    runs = Runs()
    _, lines = go(recipe, tmp_path / "out", runs)
    assert lines[0] == "search: this model is asked no texts, so none are kept aside"
    assert {recipe.data.part for recipe in runs.recipes} == {None}


def test_a_search_of_a_part_is_refused(tmp_path: Path) -> None:
    recipe = seeking(texts_file(tmp_path, 1200))
    recipe["data"] |= {"part": "searched", "held_out": 100}
    with pytest.raises(RecipeError, match=r"^data\.part: a search parts its texts itself; write ~data\.part"):
        go(recipe, tmp_path / "out", Runs())


@pytest.mark.parametrize(("recipe", "texts"), [("smallest_steps", 1040), ("smallest", 1300)])
def test_a_real_search_reports_what_it_has_not_seen(
    optimizer, tmp_path: Path, tiny_model, recipe: str, texts: int
) -> None:
    path = texts_file(tmp_path, texts)  # of 1300 smallest is calibrated on 260
    model = tiny_model("sequence-classification")
    words = [f"recipe={recipe}", "search.trials=3", f"model.path={model}", f"data.path={path}", "gates.agreement=0.8"]
    words += ["evaluation.repetitions=0", "threads=1"]
    code, out, err = optimizer(*words)
    assert code == 0, err
    (line,) = [line for line in err.splitlines() if "texts kept aside, unbiased: agreement " in line]
    assert " on 520 texts kept aside" in line or " on 500 texts kept aside" in line
    found = {row["run_id"]: row for row in rows_of(tmp_path / "outputs")}
    (final,) = [row for row in found.values() if row["data_part"] == "held_out"]
    searched = [row for row in found.values() if row["data_part"] == "searched"]
    assert len(searched) == 3
    assert {row["examples"] for row in searched if row["status"] != "failed"} == {"540"}
    assert final["examples"] == "500"
    assert line.startswith(f"search: {final['run_id']}: ")
    assert f"{final['run_id']}: its figures are of texts that no search has chosen by, and unbiased" in out
    page = (tmp_path / "outputs" / "report.html").read_text()
    assert "of texts that no search has chosen by, and unbiased; those of the 3 runs that it was chosen from" in page
    # The artifact is the chosen one's, taken over.
    (same,) = [row for row in searched if row["artifact_bytes"] == final["artifact_bytes"] and row["status"] == "ok"]
    files = [tmp_path / "outputs" / row["artifact"] / "model.safetensors" for row in (final, same)]
    assert files[0].samefile(files[1])
    # What was measured is what was kept aside, by the recipe that is kept too.
    made = load(tmp_path / "outputs" / "runs" / final["run_id"] / "recipe.yaml")
    kept = DataSettings(**made["data"])
    assert kept.part == "held_out"
    assert final["data_fingerprint"] == measured(kept, is_demo=False, calibrated=recipe == "smallest").fingerprint
    # A second time all of it is there.
    assert optimizer(*words)[0] == 0
    assert len(rows_of(tmp_path / "outputs")) == 4
