"""Plans: a recipe checked against its model and texts before anything is written."""

import contextlib
import signal
from pathlib import Path

import pytest

from optimizer import yaml
from optimizer.errors import RecipeError
from optimizer.processes import interrupt, process
from optimizer.recipe import parse
from optimizer.rows.row import Row
from optimizer.runs import run
from optimizer.runs.plan import plan


@pytest.mark.parametrize("swallowed", [None, ValueError("could not determine the shape")])
def test_a_ctrl_c_that_a_library_swallows_still_stops_the_run(
    tiny_model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swallowed: Exception | None
) -> None:
    def optimize(*_: object) -> dict[str, object]:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        if swallowed:
            raise swallowed
        return {}

    before = signal.getsignal(signal.SIGINT)
    model = {"path": str(tiny_model("sequence-classification"))}
    at = plan(parse({"model": model, "evaluation": {"examples": 0, "repetitions": 0}}))
    monkeypatch.setattr(process, "call", optimize)
    interrupt.listen()
    try:
        with pytest.raises(KeyboardInterrupt):
            run.run(at, tmp_path)
    finally:
        interrupt.listen()
        signal.signal(signal.SIGINT, before)
    assert not list(tmp_path.glob("runs/*/row.json"))


@pytest.mark.parametrize("gate", ["agreement", "agreement_low"])
def test_a_gate_on_agreement_is_refused_for_a_model_that_decides_nothing(tiny_model, gate: str) -> None:
    recipe = parse({"model": {"path": str(tiny_model("encoder"))}, "gates": {gate: 0.9}})
    with pytest.raises(RecipeError, match=rf"gates\.{gate}: .*has no agreement; write ~gates\.{gate}"):
        plan(recipe)


def test_a_gate_on_accuracy_is_refused_without_labels(tiny_model, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("the cat sees\na dog runs\n")
    model = str(tiny_model("sequence-classification"))
    recipe = parse(
        {"model": {"path": model}, "data": {"path": str(tmp_path / "texts.txt")}, "gates": {"accuracy_drop": 0.01}}
    )
    with pytest.raises(RecipeError, match=r"gates\.accuracy_drop: the texts have no labels"):
        plan(recipe)


def test_the_run_id_depends_on_what_decides_the_figures_and_on_nothing_else(tiny_model, tmp_path: Path) -> None:
    model = tiny_model("sequence-classification")
    values = {"model": {"path": str(model)}, "stages": {"cast": {}}, "threads": 1}
    first = plan(parse(values)).run_id
    copied = tiny_model("sequence-classification", tmp_path / "elsewhere")
    same = [values | {"gates": {"size_ratio": 0.5}}, values | {"model": {"path": str(copied)}}]
    others = [
        values | {"stages": {"cast": {"dtype": "bfloat16"}}},
        values | {"format": "packed"},
        values | {"also_pt": True},
        values | {"threads": 2},
        values | {"seed": 1},
        values | {"name": "other"},
        values | {"evaluation": {"examples": 5}},
        values | {"data": {"limit": 3}},
        values | {"model": {"path": str(tiny_model("token-classification"))}},
    ]
    assert {plan(parse(recipe)).run_id for recipe in same} == {first}
    assert first not in {plan(parse(recipe)).run_id for recipe in others}


def test_texts_asked_for_later_are_kept_of_the_same_run_measured_again(tiny_model, tmp_path: Path) -> None:
    model = {"path": str(tiny_model("sequence-classification"))}
    values = {"model": model, "stages": {"prune": {"amount": 0.8}}, "threads": 1, "evaluation": {"repetitions": 0}}

    def changes_of(data: dict[str, object]) -> tuple[str, str, Row]:
        at = plan(parse(values | {"data": {"path": "builtin"} | data}))
        row = run.run(at, tmp_path)
        return at.run_id, (tmp_path / "runs" / at.run_id / "changed.jsonl").read_text(), row

    run_id, bare, first = changes_of({})
    assert bare
    assert '"text"' not in bare
    assert changes_of({})[2].created_at == first.created_at
    same, kept, second = changes_of({"keep_texts": True})
    assert same == run_id
    assert second.created_at != first.created_at
    assert kept.count('"text"') == len(bare.splitlines())
    assert changes_of({"keep_texts": True})[2].created_at == second.created_at


def test_gates_against_an_earlier_run_are_applied_to_what_it_stored(optimizer, tmp_path: Path, tiny_model) -> None:
    model = tiny_model("sequence-classification")
    words = ["recipe=compact", f"model.path={model}", "data.path=builtin", "evaluation.repetitions=0", "threads=1"]
    assert optimizer(*words, "out=old")[0] == 0
    against = "gates.against=old"
    assert optimizer(*words, "out=new", against)[0] == 0
    finer = [*words, "stages.quantize.step=0.1", "out=new", against]
    code, _, err = optimizer(*finer)
    assert code == 1
    assert "rejected: against compact-" in err
    assert "size_ratio" in err
    assert optimizer(*finer, "gates.allow={size_ratio: 0.5}")[0] == 0, "a finished run is judged again"
    (earlier,) = (tmp_path / "old").glob("runs/*")
    for place in (earlier, earlier / "artifact", earlier / "row.json", tmp_path / "old" / "results.csv"):
        assert optimizer(*finer, "gates.allow={size_ratio: 0.5}", f"gates.against={place}")[0] == 0
    recipe = yaml.load(next((tmp_path / "new").glob("runs/*")) / "recipe.yaml")
    assert recipe["gates"]["against"] == "old"


def test_an_earlier_run_that_is_not_there_or_does_not_compare_is_refused(optimizer, tmp_path: Path, tiny_model) -> None:
    model = tiny_model("sequence-classification")
    words = [f"model.path={model}", "evaluation.repetitions=0", "threads=1"]
    assert optimizer("-m", "recipe=pruned", "pruning_amount=0.1,0.2", *words, "out=old")[0] == 0
    (tmp_path / "other.txt").write_text("the cat\na dog\n")
    (some, _) = sorted((tmp_path / "old").glob("runs/*"))
    for said, line in (
        (["gates.against=nowhere"], "gates.against: nowhere: does not exist; give an out folder, a results.csv"),
        (["gates.against=old"], "gates.against: 'old' holds 2 runs, 2 of the recipe 'pruned'; write gates.against=old"),
        ([f"gates.against={some}", "data.path=other.txt"], "was measured on other texts; run that recipe on these"),
        (["recipe=smallest", f"gates.against={some}"], "gates.against: a search is held to no earlier run"),
    ):
        code, _, err = optimizer("recipe=pruned", *words, *said)
        assert (code, len(err.splitlines())) == (2, 1), err
        assert line in err
