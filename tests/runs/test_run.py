"""Plans: a recipe checked against its model and texts before anything is written."""

import contextlib
import signal
from pathlib import Path

import pytest

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
