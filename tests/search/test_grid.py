"""A search by grid: every combination once, in the written order, without those that cannot be run here."""

import copy
import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import optimizer
from optimizer.errors import RecipeError
from optimizer.recipe import Recipe
from optimizer.rows.gates import missed_gates
from optimizer.rows.row import Row
from optimizer.search import search, settings, space
from optimizer.search.space import grid_of

SPEEDS = {"int8": 6.0, "int8_weights": 4.0, "bfloat16": 3.0, "float32": 2.0}
RECIPE: dict[str, Any] = {
    "name": "quick",
    "format": "openvino",
    "data": {"path": "builtin"},
    "gates": {"agreement": 0.99},
    "search": {
        "maximize": "speedup",
        "by": "grid",
        "ranges": {
            "format": ["openvino", "onnx"],
            "engine.precision": ["int8", "bfloat16"],
            "engine.reduce": [True, False],
        },
    },
}
ALL = [
    ("openvino", "int8", True),
    ("openvino", "int8", False),
    ("openvino", "bfloat16", True),
    ("openvino", "bfloat16", False),
    ("onnx", "int8", True),
    ("onnx", "int8", False),
]
IMPOSSIBLE = "search: left out: 2 combinations that the formats do not have"


def changed(**search: Any) -> dict[str, Any]:
    recipe = copy.deepcopy(RECIPE)
    return recipe | {"search": recipe["search"] | search}


class Runs:
    """Rows by formula in place of runs: fewer bits and less work are faster, ONNX Runtime is slower."""

    def __init__(self, agreement: float = 0.995) -> None:
        self.tried: list[tuple[str, str, bool]] = []
        self.agreement = agreement
        self.stop_after: int | None = None

    def __call__(self, recipes: list[Recipe]) -> list[Row]:
        return [self.row(recipe) for recipe in recipes]

    def row(self, recipe: Recipe) -> Row:
        if len(self.tried) == self.stop_after:
            raise KeyboardInterrupt
        engine = recipe.output.engine_settings
        assert engine is not None
        precision, reduce = engine.model_dump()["precision"], engine.model_dump()["reduce"]
        self.tried.append((recipe.output.format, precision, reduce))
        row = Row(
            run_id="-".join(map(str, self.tried[-1])),
            status="ok",
            recipe=recipe.name,
            data="file",
            model="m",
            original_bytes=1000,
            examples=100,
            artifact_bytes=300,
            size_ratio=0.3,
            agreement=self.agreement,
            speedup=SPEEDS[precision] + 0.5 * reduce - 0.2 * (recipe.output.format == "onnx"),
        )
        missed = missed_gates(recipe.gates.bounds(), row)
        return replace(row, status="rejected" if missed else "ok", error=missed)


def go(recipe: dict[str, Any], out: Path, run: Runs) -> tuple[list[Row], list[str]]:
    lines: list[str] = []
    return search(recipe, run, out, lines.append), lines


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`without(*packages)`: as if they were not installed."""
    find = importlib.util.find_spec

    def hide(*packages: str) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in packages else find(name))

    return hide


def test_every_combination_is_tried_once_in_the_written_order_and_the_fastest_comes_first(tmp_path: Path) -> None:
    runs = Runs()
    rows, lines = go(RECIPE, tmp_path, runs)
    assert runs.tried == ALL
    assert [row.run_id for row in rows][:2] == ["openvino-int8-True", "onnx-int8-True"]
    assert lines.count(IMPOSSIBLE) == 1
    assert any("best of 6 trials: openvino-int8-True: speedup 6.5" in line for line in lines)


def test_its_trials_are_as_many_as_its_combinations_unless_fewer_are_asked_for(tmp_path: Path) -> None:
    assert settings(RECIPE).trials == 6
    assert settings(changed(trials=40)).trials == 6
    assert settings(changed(trials=4)).trials == 4
    few, rest = Runs(), Runs()
    go(changed(trials=2), tmp_path, few)
    go(RECIPE, tmp_path, rest)
    assert few.tried == ALL[:2]
    assert rest.tried == ALL  # the first two again: this `run` keeps nothing


def test_one_stopped_in_the_middle_goes_on(tmp_path: Path) -> None:
    first, second = Runs(), Runs()
    first.stop_after = 3
    with pytest.raises(KeyboardInterrupt):
        go(RECIPE, tmp_path, first)
    rows, lines = go(RECIPE, tmp_path, second)
    assert len(rows) == 6
    assert first.tried == ALL[:3]
    assert any("3 of 6 trials are there already" in line for line in lines)


def test_ranges_with_a_step_are_choices(tmp_path: Path) -> None:
    recipe: dict[str, Any] = {
        "stages": {"quantize": {"bits": 8}},
        "search": {"minimize": "size_ratio", "by": "grid", "ranges": {"stages.quantize.bits": {"low": 4, "high": 8}}},
    }
    with pytest.raises(RecipeError, match=r"^search\.ranges\.stages\.quantize\.bits: a grid has choices; write \[4, 8"):
        settings(recipe)
    recipe["search"]["ranges"]["stages.quantize.bits"]["step"] = 2
    assert settings(recipe).trials == 3


def test_an_engine_that_is_not_installed_is_left_out_with_the_extra_that_brings_it(tmp_path: Path, without) -> None:
    without("onnxruntime")
    runs = Runs()
    _, lines = go(RECIPE, tmp_path, runs)
    assert runs.tried == ALL[:4]
    (line,) = [line for line in lines if "onnxruntime" in line]
    assert line.startswith(
        "search: left out: format: needs the package onnxruntime; run: pip install 'transformer-optimizer[onnx]'"
    )


def test_the_engine_of_the_recipe_itself_may_be_the_one_that_is_missing(tmp_path: Path, without) -> None:
    without("openvino")
    runs = Runs()
    go(RECIPE, tmp_path, runs)
    assert runs.tried == ALL[4:]


def test_without_any_engine_it_is_refused_in_one_line(tmp_path: Path, without) -> None:
    without("nncf")
    with pytest.raises(
        RecipeError, match=r"^format: needs the package nncf; run: pip install 'transformer-optimizer\[openvino\]'"
    ):
        go(RECIPE, tmp_path, Runs())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("ranges", "line"),
    [
        ({"engine.precision": ["int8", "int9"]}, "search.ranges.engine.precision: engine.precision: 'int9': "),
        ({"format": ["onnx"], "engine.precision": ["int8", "bfloat16"]}, ".engine.precision: engine.precision: 'bfl"),
        ({"engine.precison": ["int8"]}, "unknown key 'engine.precison'; did you mean 'engine.precision'?"),
        ({"model.path": ["a", "b"]}, "search.ranges: unknown key 'model.path'; "),
        ({"engine.precision": []}, ".engine.precision: []: expected a range or choices"),
        ({"engine": ["int8"]}, "search.ranges.engine: engine: 'int8': expected settings that go together; write {pre"),
        ({"engine": [{"precison": "int8"}]}, "search.ranges.engine: engine: unknown key 'precison'; did you mean"),
    ],
)
def test_a_choice_that_no_combination_can_have_is_refused(tmp_path: Path, ranges: Any, line: str) -> None:
    with pytest.raises(RecipeError) as refused:
        go(changed(ranges=ranges), tmp_path, Runs())
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


TURNS = changed(by="turns")


def test_in_turns_each_choice_stands_beside_the_best_so_far(tmp_path: Path) -> None:
    runs = Runs()
    _, lines = go(TURNS, tmp_path, runs)
    assert runs.tried == [
        ("openvino", "int8", True),
        ("onnx", "int8", True),
        ("openvino", "bfloat16", True),
        ("openvino", "int8", False),
    ]
    assert lines.count(IMPOSSIBLE) == 1
    assert any("best of 4 trials: openvino-int8-True" in line for line in lines)


def test_turns_go_on_from_what_wins_and_pass_over_what_it_cannot_have(tmp_path: Path) -> None:
    class Other(Runs):
        def row(self, recipe: Recipe) -> Row:
            row = super().row(recipe)
            assert row.speedup is not None
            return replace(row, speedup=row.speedup + 5 * (recipe.output.format == "onnx"))

    runs = Other()
    rows, _ = go(TURNS, tmp_path, runs)
    assert runs.tried == [("openvino", "int8", True), ("onnx", "int8", True), ("onnx", "int8", False)]
    assert rows[0].run_id == "onnx-int8-True"


def test_turns_that_run_at_once_end_before_the_next_begins(tmp_path: Path) -> None:
    runs = Runs()
    rounds: list[int] = []

    def run(recipes: list[Recipe]) -> list[Row]:
        rounds.append(len(recipes))
        return runs(recipes)

    search(changed(by="turns", trials=4), run, tmp_path, print, 3)
    assert len(runs.tried) == 4
    assert max(rounds) <= 2


def test_turns_are_as_many_as_their_choices() -> None:
    assert settings(TURNS).trials == 4
    assert settings(changed(by="turns", trials=2)).trials == 2
    assert settings(changed(by="turns", trials=9)).trials == 4


def test_turns_that_stopped_go_on(tmp_path: Path) -> None:
    first, second = Runs(), Runs()
    first.stop_after = 3
    with pytest.raises(KeyboardInterrupt):
        go(TURNS, tmp_path, first)
    _, lines = go(TURNS, tmp_path, second)
    assert second.tried[-1] == ("openvino", "int8", False)
    assert any("3 of 4 trials are there already" in line for line in lines)


def test_the_fastest_is_sought_among_engines_precisions_and_widths() -> None:
    recipe = optimizer.compose("recipe=fastest", "evaluation.batch_size=1", "engine.exclude=[head]")
    found = settings(recipe)
    assert (found.maximize, found.by, found.trials) == ("speedup_low", "turns", 11)
    assert recipe["gates"]["agreement"] == 0.99
    tried = [space.changed(recipe, values) for values in grid_of(recipe, found).combinations]
    kinds = [
        (one.output.format, one.output.engine.get("precision"), one.output.engine.get("agreement")) for one in tried
    ]
    assert list(dict.fromkeys(kinds)) == [
        ("openvino", "int8", 0.995),
        ("openvino", "int8_weights", None),
        ("openvino", "bfloat16", None),
        ("openvino", "float32", None),
        ("onnx", "int8", 0.995),
        ("onnx", "float32", None),
    ]
    assert len(tried) == 6 * 6 * 2
    assert all(one.output.engine["exclude"] == ["head"] for one in tried), "what is not in a range is the recipe's own"
