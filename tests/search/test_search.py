"""A search: which trials are made, what a second start makes of the first, and every way to write it wrongly."""

import copy
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import optimizer.search
from optimizer.errors import ArtifactError, RecipeError
from optimizer.recipe import Recipe
from optimizer.rows.gates import missed_gates
from optimizer.rows.row import COLUMNS as ROW_COLUMNS
from optimizer.rows.row import Row
from optimizer.search import search, settings, trials
from optimizer.search.space import COLUMNS
from optimizer.search.trials import Trial

pytest.importorskip("optuna")

RECIPE: dict[str, Any] = {
    "name": "seek",
    "stages": {
        "prune": {"amount": 0.3},
        "quantize": {"step": 0.25, "skip": ["*.pooler.*"]},
        "cast": None,
    },
    "data": {"path": "builtin"},
    "gates": {"agreement": 0.99},
    "search": {
        "minimize": "size_ratio",
        "trials": 12,
        "ranges": {
            "stages.quantize.step": {"low": 0.1, "high": 1.0},
            "stages.prune.amount": {"low": 0.0, "high": 0.5, "step": 0.05},
        },
    },
}


def changed(**changes: Any) -> dict[str, Any]:
    """RECIPE with other values; those of `search` are merged into it."""
    recipe = copy.deepcopy(RECIPE)
    return recipe | changes | {"search": recipe["search"] | changes.get("search", {})}


def bits(low: int, high: int, **more: Any) -> dict[str, Any]:
    """A recipe that searches the bits of a quantization."""
    ranges = {"stages.quantize.bits": {"low": low, "high": high, **more}}
    return changed(stages={"quantize": {"bits": 8}}, search={"ranges": ranges})


class Runs:
    """Rows by formula in place of runs: coarser is smaller and agrees less. `calls` holds each call's new recipes.

    What any of `before` has run is finished already.
    """

    def __init__(self, *before: "Runs", **fixed: Any) -> None:
        self.calls: list[list[Recipe]] = []
        self.before = before
        self.fixed = fixed
        self.stop_after: int | None = None

    def __call__(self, recipes: list[Recipe]) -> list[Row]:
        finished = [recipe for runs in self.before for call in runs.calls for recipe in call]
        if new := [recipe for recipe in recipes if recipe not in finished]:
            if self.stop_after is not None and len(self.calls) == self.stop_after:
                raise KeyboardInterrupt
            self.calls.append(new)
        return [self.row(recipe) for recipe in recipes]

    @property
    def tried(self) -> list[dict[str, Any]]:
        return [
            {step.label: step.stage.model_dump() for step in recipe.steps} for call in self.calls for recipe in call
        ]

    def row(self, recipe: Recipe) -> Row:
        made_by = {step.label: step.stage.model_dump() for step in recipe.steps}
        step = made_by["quantize"]["step"] or 8 / made_by["quantize"]["bits"]
        amount = made_by.get("prune", {"amount": 0.0})["amount"]
        row = Row(
            run_id=f"seek-{json.dumps(recipe.made_by(), sort_keys=True)}",
            status="ok",
            recipe=recipe.name,
            data="file",
            model="m",
            original_bytes=1000,
            examples=100,
            artifact_bytes=round(200 / (1 + step + amount)),
            size_ratio=0.2 / (1 + step + amount),
            agreement=1 - 0.03 * step**2 - 0.02 * amount,
            cosine_similarity=1.0,
        ).with_figures(self.fixed)
        missed = missed_gates(recipe.gates.bounds(), row)
        status = self.fixed.get("status") or ("rejected" if missed else "ok")
        return replace(row, status=status, error=missed or self.fixed.get("error"))


def journals(out: Path) -> list[Path]:
    return list((out / "search").glob("*.jsonl"))


def go(recipe: dict[str, Any], out: Path, run: Callable[..., list[Row]], **options: Any) -> tuple[list[Row], list[str]]:
    lines: list[str] = []
    return search(recipe, run, out, lines.append, **options), lines


def test_the_recipe_itself_is_tried_first_and_the_best_that_meets_the_gates_comes_first(tmp_path: Path) -> None:
    runs = Runs()
    rows, lines = go(RECIPE, tmp_path, runs)
    assert [len(call) for call in runs.calls] == [1] * 12
    assert runs.tried[0]["quantize"]["step"] == 0.25
    assert runs.tried[0]["prune"]["amount"] == 0.3
    statuses = [row.status for row in rows]
    assert set(statuses) == {"ok", "rejected"}
    assert statuses == sorted(statuses)
    good = [row.size_ratio for row in rows if row.status == "ok"]
    assert good == sorted(good)
    assert good[0] < 0.2 / 1.55
    assert any(f"search: best of 12 trials: {rows[0].run_id}: size_ratio {good[0]:.6g}" in line for line in lines)
    assert [line for line in lines if line.startswith("front: ")]


def test_the_constraints_draw_the_trials_to_where_the_gates_are_met(tmp_path: Path) -> None:
    def late_agreements(gates: dict[str, float]) -> list[float]:
        runs = Runs()
        go(changed(gates=gates, search={"trials": 24}), tmp_path, runs)
        return [runs.row(recipe).agreement for call in runs.calls[12:] for recipe in call]

    held = sum(agreement >= 0.99 for agreement in late_agreements({"agreement": 0.99}))
    free = sum(agreement >= 0.99 for agreement in late_agreements({}))
    assert held >= 6
    assert free <= 2


def test_maximize_puts_the_greatest_first(tmp_path: Path) -> None:
    recipe = changed(gates={"size_ratio": 0.15}, search={"maximize": "agreement", "minimize": None})
    rows, _ = go(recipe, tmp_path, Runs())
    good = [row.agreement for row in rows if row.status == "ok"]
    assert good == sorted(good, reverse=True)
    assert good[0] == max(good)
    assert rows[0].size_ratio <= 0.15


def test_the_same_seed_makes_the_same_trials_and_another_seed_others(tmp_path: Path) -> None:
    first, again, other = Runs(), Runs(), Runs()
    go(RECIPE, tmp_path / "first", first)
    go(RECIPE, tmp_path / "again", again)
    go(changed(search={"seed": 1}), tmp_path / "first", other)
    assert first.tried == again.tried
    assert first.tried[0] == other.tried[0]
    assert first.tried[1:] != other.tried[1:]


@pytest.mark.parametrize("stop_after", [0, 1, 7, 11])
def test_a_search_stopped_in_the_middle_goes_on_as_if_it_had_not(tmp_path: Path, stop_after: int) -> None:
    whole, first = Runs(), Runs()
    second = Runs(first)
    expected, _ = go(RECIPE, tmp_path / "whole", whole)
    first.stop_after = stop_after
    with pytest.raises(KeyboardInterrupt):
        go(RECIPE, tmp_path, first)
    rows, _ = go(RECIPE, tmp_path, second)
    assert first.tried + second.tried == whole.tried
    assert rows == expected


def test_what_a_killed_process_leaves_behind_does_no_harm(tmp_path: Path) -> None:
    whole, first = Runs(), Runs()
    second = Runs(first)
    go(RECIPE, tmp_path / "whole", whole)
    first.stop_after = 5
    with pytest.raises(KeyboardInterrupt):
        go(RECIPE, tmp_path, first)
    (journal,) = journals(tmp_path)
    with journal.open("ab") as file:
        file.write(b'{"values": {"stages.pru')
    go(RECIPE, tmp_path, second)
    assert first.tried + second.tried == whole.tried
    assert journals(tmp_path) == [journal]


def test_a_finished_search_runs_nothing_and_more_trials_go_on_from_there(tmp_path: Path) -> None:
    first = Runs()
    again, more = Runs(first), Runs(first)
    rows, said = go(RECIPE, tmp_path, first)
    same, lines = go(RECIPE, tmp_path, again)
    assert not again.calls
    assert same == rows
    assert "12 of 12 trials are there already" in lines[1]
    assert [lines[0], *lines[2:]] == [line for line in said if " trial " not in line]
    longer, _ = go(changed(search={"trials": 15}), tmp_path, more)
    assert len(more.calls) == 3
    assert {row.run_id for row in rows} < {row.run_id for row in longer}
    assert len(journals(tmp_path)) == 1


def test_any_function_may_propose(tmp_path: Path) -> None:
    """One that halves the way between what met the gates and what did not, say."""

    def halve(goal: Any, own: Any, trials: Sequence[Trial], number: int) -> dict[str, Any]:
        assert number == len(trials)
        good, bad = 0.1, 1.0
        for trial in trials:
            step = trial.values["stages.quantize.step"]
            good, bad = (good, step) if trial.shortfalls["agreement"] > 0 else (step, bad)
        return {"stages.quantize.step": (good + bad) / 2, "stages.prune.amount": own["stages.prune.amount"]}

    lines: list[str] = []
    rows = trials.rows(trials.search(RECIPE, settings(RECIPE), halve, Runs(), tmp_path, lines.append, 1, False))
    assert rows[0].agreement == pytest.approx(0.99, abs=1e-5)
    assert rows[0].agreement >= 0.99


@pytest.mark.parametrize(
    "other",
    [
        changed(gates={"agreement": 0.98}),
        changed(search={"minimize": "artifact_bytes"}),
        changed(search={"ranges": {"stages.quantize.step": {"low": 0.1, "high": 0.9}}}),
        changed(data={"path": "builtin", "limit": 5}),
        changed(evaluation={"examples": 5}),
        changed(stages=RECIPE["stages"] | {"prune": {"amount": 0.2}}),
    ],
)
def test_a_search_for_anything_else_begins_anew(tmp_path: Path, other: dict[str, Any]) -> None:
    go(changed(search={"trials": 1}), tmp_path, Runs())
    runs = Runs()
    go(other | {"search": other["search"] | {"trials": 1}}, tmp_path, runs)
    assert len(runs.calls) == 1
    assert len(journals(tmp_path)) == 2


def test_force_begins_anew(tmp_path: Path) -> None:
    go(RECIPE, tmp_path, Runs())
    runs = Runs()
    go(RECIPE, tmp_path, runs, force=True)
    assert len(runs.calls) == 12


def test_several_trials_at_once_end_at_the_number_asked_for(tmp_path: Path) -> None:
    runs = Runs()
    rows, _ = go(changed(search={"trials": 13}), tmp_path, runs, at_once=5)
    assert [len(call) for call in runs.calls] == [
        3,
        3,
        3,
        3,
        1,
    ]  # no more at once than leaves four rounds to learn from
    assert len({row.run_id for row in rows}) == len(rows) == 13


def test_failed_runs_are_trials_too_and_come_last(tmp_path: Path) -> None:
    class Fragile(Runs):
        def row(self, recipe: Recipe) -> Row:
            failure = {"status": "failed", "error": "out of memory", "size_ratio": None, "agreement": None}
            return super().row(recipe).with_figures(failure if len(self.calls) % 3 == 2 else {})

    runs = Fragile()
    rows, lines = go(RECIPE, tmp_path, runs)
    assert len(runs.calls) == 12
    assert [row.status for row in rows[-4:]] == ["failed"] * 4
    assert rows[0].status == "ok"
    assert any("trial 2 of 12: failed: out of memory" in line for line in lines)
    assert len(journals(tmp_path)) == 1


def test_a_second_start_makes_up_for_the_trials_that_failed(tmp_path: Path) -> None:
    first, second = Runs(status="failed", error="disk full", size_ratio=None), Runs()
    go(changed(search={"trials": 5}), tmp_path, first)
    rows, _ = go(changed(search={"trials": 5}), tmp_path, second)
    assert first.tried[0] == second.tried[0]
    assert len(rows) == len(second.calls) == 5
    assert "failed" not in {row.status for row in rows}
    again = Runs(second)
    assert go(changed(search={"trials": 5}), tmp_path, again)[0] == rows
    assert not again.calls


def test_a_search_in_which_everything_fails_says_so(tmp_path: Path) -> None:
    rows, lines = go(RECIPE, tmp_path, Runs(status="failed", error="no such layer"))
    assert {row.status for row in rows} == {"failed"}
    assert "all of 12 trials failed" in lines[-1]
    assert "no such layer" in lines[-1]


def test_when_no_run_meets_the_gates_the_nearest_comes_first(tmp_path: Path) -> None:
    rows, lines = go(changed(gates={"agreement": 1.0, "size_ratio": 0.18}), tmp_path, Runs())
    assert {row.status for row in rows} == {"rejected"}
    missed = [max(0.0, 1 - row.agreement) + max(0.0, row.size_ratio - 0.18) for row in rows]
    assert missed == pytest.approx(sorted(missed))
    assert f"none of 12 trials meets the gates; nearest: {rows[0].run_id}: agreement" in lines[-1]


def test_figures_that_no_gate_accepts_are_infinitely_far(tmp_path: Path) -> None:
    rows, lines = go(RECIPE, tmp_path, Runs(data="random"))
    assert {row.status for row in rows} == {"rejected"}
    assert "rests on random inputs" in lines[-1]


def test_a_figure_that_is_no_number_is_a_failed_trial(tmp_path: Path) -> None:
    recipe = changed(search={"minimize": "kl_divergence", "trials": 3})
    rows, _ = go(recipe, tmp_path, Runs(kl_divergence=math.nan, agreement=1.0))
    assert len(rows) == 3


def test_a_column_that_this_model_does_not_have_ends_the_search(tmp_path: Path) -> None:
    recipe = changed(search={"minimize": None, "maximize": "accuracy"})
    with pytest.raises(RecipeError, match=r"^search\.maximize: accuracy is not measured .*write maximize: [^\n]*$"):
        go(recipe, tmp_path, Runs())


def test_whole_numbers_stay_whole_and_choices_stay_what_they_are(tmp_path: Path) -> None:
    runs = Runs()
    go(bits(2, 8, step=2), tmp_path, runs)
    tried = [stages["quantize"]["bits"] for stages in runs.tried]
    assert {type(value) for value in tried} == {int}
    assert set(tried) <= {2, 4, 6, 8}
    assert len(set(tried)) > 1
    assert tried[0] == 8

    runs = Runs()
    ranges = {
        "stages.quantize.bits": [4, 6],
        "stages.quantize.skip": [[], ["*.pooler.*"]],
        "format": ["dense", "packed"],
    }
    go(changed(stages={"quantize": {"bits": 6}}, search={"ranges": ranges}), tmp_path, runs)
    assert runs.tried[0]["quantize"]["bits"] == 6
    assert {recipe.output.format for call in runs.calls for recipe in call} == {"dense", "packed"}
    skipped = {tuple(recipe.steps[0].routing.skip) for call in runs.calls for recipe in call}
    assert skipped == {(), ("*.pooler.*",)}


def test_a_setting_that_is_a_float_is_searched_between_whole_ends_and_steps_come_out_even(tmp_path: Path) -> None:
    runs = Runs()
    ranges = {
        "stages.quantize.step": {"low": 1, "high": 2},
        "stages.prune.amount": {"low": 0, "high": 0.6, "step": 0.1},
    }
    go(changed(search={"ranges": ranges}), tmp_path, runs)
    assert any(not stages["quantize"]["step"].is_integer() for stages in runs.tried)
    assert {stages["prune"]["amount"] for stages in runs.tried} <= {0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6}


def test_the_same_settings_again_are_one_row(tmp_path: Path) -> None:
    rows, _ = go(bits(7, 8), tmp_path, Runs())
    assert len(rows) == 2


def test_what_is_proposed_twice_at_once_is_run_once(tmp_path: Path) -> None:
    runs = Runs()
    rows, _ = go(bits(7, 8), tmp_path, runs, at_once=12)
    assert all(len(call) <= 2 for call in runs.calls)
    assert len(rows) == 2


def test_another_process_at_the_same_search_is_refused(tmp_path: Path) -> None:
    def again(recipes: list[Recipe]) -> list[Row]:
        with pytest.raises(RecipeError, match=r"^search: another process is at this search \([^\n]*$"):
            go(RECIPE, tmp_path, Runs())
        return Runs()(recipes)

    assert len(go(changed(search={"trials": 1}), tmp_path, again)[0]) == 1


def test_a_damaged_journal_is_refused_and_can_be_begun_anew(tmp_path: Path) -> None:
    go(changed(search={"trials": 2}), tmp_path, Runs())
    (journal,) = journals(tmp_path)
    for line in ("what is this", "[]", "{}", '{"values": {"stages.prune.amount": 0.1}, "value": 0.1}'):
        journal.write_text(f"{line}\n{journal.read_text()}")
        with pytest.raises(ArtifactError, match=r"^[^\n]*is damaged [^\n]*remove it, or write force=true$"):
            go(changed(search={"trials": 2}), tmp_path, Runs())
        journal.write_text(journal.read_text().partition("\n")[2])
    assert len(go(changed(search={"trials": 2}), tmp_path, Runs(), force=True)[0]) == 2


def test_without_optuna_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "optimizer.search.tpe", raising=False)
    monkeypatch.delattr(optimizer.search, "tpe", raising=False)
    assert settings(RECIPE).trials == 12
    with pytest.raises(RecipeError, match=r"pip install 'transformer-optimizer\[search\]'$"):
        go(RECIPE, tmp_path, Runs())
    assert not list(tmp_path.iterdir())


def with_ranges(**ranges: Any) -> dict[str, Any]:
    return changed(search={"ranges": {key.replace("__", "."): value for key, value in ranges.items()}})


@pytest.mark.parametrize(
    ("recipe", "line"),
    [
        (changed(search={"minimise": "x"}), "search: unknown key 'minimise'; did you mean 'search.minimize'?"),
        (changed(search={"minimize": None}), "search: one of minimize and maximize is required; write minimize: "),
        (changed(search={"maximize": "agreement"}), "search: one of minimize and maximize is required"),
        (changed(search={"minimize": "size_rate"}), "unknown column 'size_rate'; did you mean 'size_ratio'?"),
        (changed(search={"minimize": "recipe"}), "search.minimize: unknown column 'recipe'; "),
        (
            changed(search={"minimize": "latency_ms_p50"}, evaluation={"repetitions": 0}),
            "search.minimize: this evaluation does not measure latency_ms_p50; write evaluation=full",
        ),
        (
            changed(search={"minimize": "perplexity"}, evaluation={"examples": 0}, gates={}),
            "search.minimize: this evaluation does not measure perplexity; write evaluation=full",
        ),
        (changed(search={"trials": 0}), "search.trials: 0: "),
        (changed(search={"ranges": {}}), "search.ranges: {}: write at least one setting with its range"),
        (with_ranges(stages__prune__amout=[0.1]), "unknown key 'stages.prune.amout'; did you mean "),
        (with_ranges(model__path=["a", "b"]), "search.ranges: unknown key 'model.path'; "),
        (with_ranges(pruning_amount=[0.1]), "is a knob, not a setting of the recipe; write stages.prune.amount"),
        (with_ranges(threshold=[0.1]), "is a knob, not a setting of the recipe; write stages.threshold.value"),
        (with_ranges(stages__prune__amount=[]), ".stages.prune.amount: []: expected a range or choices; write "),
        (with_ranges(stages__prune__amount=0.2), "search.ranges.stages.prune.amount: 0.2: expected a range or choices"),
        (with_ranges(stages__prune__amount={"low": 0.1}), ".stages.prune.amount.high: is required; write "),
        (with_ranges(stages__prune__amount={"low": 0.2, "high": 0.2}), "low must be less than high"),
        (with_ranges(stages__prune__amount={"low": 0.2, "high": math.inf}), "finite number"),
        (with_ranges(stages__prune__amount={"low": 0, "high": 0.2, "log": True}), "log: true needs a low above 0"),
        (with_ranges(stages__prune__amount={"low": 0, "high": 0.2, "step": 0}), "step must be above 0"),
        (with_ranges(stages__prune__amount={"low": 0, "high": 0.2, "step": 0.15}), "high must be low plus a mul"),
        (with_ranges(stages__prune__amount={"low": 0.1, "high": 0.2, "step": 0.1, "log": True}), "exclude each other"),
        (with_ranges(stages__prune__amount={"low": 0.1, "high": 1.5}), "search.ranges.stages.prune.amount: stages.p"),
        (with_ranges(stages__prune__scope=["tensor", "modle"]), ".stages.prune.scope: stages.prune.scope: "),
        (bits(2, 9), "search.ranges.stages.quantize.bits: stages.quantize.bits: 9: "),
    ],
)  # fmt: skip
def test_a_wrong_search_is_refused_in_one_line_before_the_first_run(
    tmp_path: Path, recipe: dict[str, Any], line: str
) -> None:
    runs = Runs()
    with pytest.raises(RecipeError) as refused:
        go(recipe, tmp_path / "out", runs)
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not runs.calls
    assert not (tmp_path / "out").exists()


def test_a_knob_is_said_by_the_label_that_its_stage_has() -> None:
    recipe = changed(stages={"thin": {"stage": "prune", "amount": 0.3}}, search={"ranges": {"pruning_amount": [0.1]}})
    with pytest.raises(RecipeError, match=r"write stages\.thin\.amount$"):
        settings(recipe)


def test_every_column_that_can_be_sought_is_in_the_row() -> None:
    assert set(COLUMNS) <= set(ROW_COLUMNS)


def test_an_out_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RecipeError, match=r"^out: .* cannot be written \([^\n]*\); write out=DIR$"):
        go(RECIPE, tmp_path / "file", Runs())


@pytest.mark.slow
def test_real_runs_on_a_tiny_model(tiny_model, tmp_path: Path) -> None:
    from optimizer.runs.sweep import sweep

    texts = tmp_path / "texts.txt"
    texts.write_text("the cat sees\na dog runs\nbig fish sleeps now\nthe red bird likes a small green fish\n")
    recipe = changed(
        model={"path": str(tiny_model("sequence-classification"))},
        data={"path": str(texts)},
        evaluation={"repetitions": 0},
        gates={"agreement": 0.5},
        format="packed",
        search={"trials": 4},
    )
    out = tmp_path / "out"
    rows, lines = go(recipe, out, lambda recipes: sweep(recipes, out))
    assert len(rows) == 4
    assert rows[0].status == "ok"
    assert all((out / row.artifact).is_dir() for row in rows)
    assert go(recipe, out, lambda recipes: sweep(recipes, out))[0] == rows
    assert "search: best of 4 trials" in " ".join(lines)
