"""The functions for notebooks: rows as frames, the command line's errors, nobody's process disturbed."""

import signal
import sys
from pathlib import Path
from typing import Any

import pandas
import pytest

import optimizer
from optimizer.errors import ModelError, RecipeError
from optimizer.rows.row import COLUMNS

NOTHING = {"examples": 0, "repetitions": 0}


@pytest.fixture
def recipe(tiny_model) -> dict[str, Any]:
    model = {"path": str(tiny_model("sequence-classification"))}
    return {"name": "mine", "model": model, "stages": {"cast": {}}, "evaluation": NOTHING}


def test_a_run_is_a_frame_of_its_row(recipe, tmp_path) -> None:
    handler = signal.getsignal(signal.SIGINT)
    frame = optimizer.run(recipe, out=tmp_path)
    assert isinstance(frame, pandas.DataFrame)
    assert tuple(frame.columns) == COLUMNS
    (row,) = frame.to_dict("records")
    assert (row["status"], row["stages"], row["format"]) == ("ok", "cast", "dense")
    assert optimizer.load(tmp_path / row["artifact"]).num_parameters() == row["parameters"]
    assert signal.getsignal(signal.SIGINT) is handler
    assert pandas.read_csv(tmp_path / "results.csv")["run_id"].tolist() == [row["run_id"]]
    again = optimizer.run(recipe, out=tmp_path)
    assert again["created_at"].tolist() == [row["created_at"]]
    assert optimizer.run(recipe, out=tmp_path, force=True)["created_at"].tolist() > [row["created_at"]]


def test_a_sweep_is_a_frame_of_its_rows_in_their_order(recipe, tmp_path) -> None:
    recipes = [recipe | {"stages": {"prune": {"amount": amount}}} for amount in (0.3, 0.1, 0.2)]
    frame = optimizer.sweep(recipes, out=tmp_path, launcher={"launcher": "joblib", "n_jobs": 2}, keep="none")
    assert frame["pruning_amount"].tolist() == [0.3, 0.1, 0.2]
    assert frame["status"].eq("ok").all()
    assert frame["artifact"].isna().all()


def test_shipped_recipes_can_be_composed(tmp_path) -> None:
    before = list(sys.argv)
    recipe = optimizer.compose("recipe=aggressive", "pruning_amount=0.4", "evaluation=none")
    assert sys.argv == before
    assert recipe["stages"]["prune"]["amount"] == 0.4
    assert optimizer.run(recipe, out=tmp_path)["pruning_amount"].tolist() == [0.4]
    with pytest.raises(RecipeError, match="nope"):
        optimizer.compose("recipe=nope")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["out=X"], "out: is no recipe's matter"),
        (["++force=true"], "force: is no recipe's matter"),
        (["hydra/launcher=joblib"], r"write sweep\(\.\.\., launcher='joblib'\)"),
        (["+hydra.launcher.n_jobs=2"], "hydra/launcher: is no recipe's matter"),
        (["-m", "pruning_amount=0.1,0.2"], "-m: compose gives one recipe"),
        (["hydra.mode=MULTIRUN", "pruning_amount=0.1,0.2"], "compose: 2 recipes"),
    ],
)
def test_what_compose_would_lose_is_an_error(overrides, said) -> None:
    with pytest.raises(RecipeError, match=said):
        optimizer.compose("recipe=pruned", *overrides)


def test_a_launcher_is_a_name_or_a_mapping(recipe, tmp_path) -> None:
    assert optimizer.sweep([recipe], out=tmp_path / "out", launcher="joblib")["status"].tolist() == ["ok"]
    with pytest.raises(RecipeError, match="launcher: 2 is no mapping"):
        optimizer.sweep([recipe], out=tmp_path / "other", launcher=2)
    assert not (tmp_path / "other").exists()


def test_models_of_others_are_compared(tiny_model, tmp_path) -> None:
    original = tiny_model("sequence-classification")
    noisy = tiny_model("sequence-classification", tmp_path / "noisy", initializer_range=0.6)
    texts = tmp_path / "texts.txt"
    texts.write_text("the cat sees\na red dog runs\n")
    frame = optimizer.compare(
        original, [original, noisy], data=texts, evaluation={"repetitions": 0}, page=tmp_path / "page", threads=1
    )
    assert frame["run_id"].tolist() == [original.name, "noisy"]
    assert frame["agreement"].tolist()[0] == 1
    assert frame["examples"].tolist() == [2, 2]
    assert "noisy" in (tmp_path / "page" / "report.html").read_text()


def test_errors_are_the_command_lines(recipe, tmp_path) -> None:
    with pytest.raises(RecipeError, match="unknown key 'stage'; did you mean 'stages'"):
        optimizer.run({"stage": {}}, out=tmp_path)
    with pytest.raises(RecipeError, match="keep: 'some'"):
        optimizer.sweep([recipe], out=tmp_path, keep="some")
    with pytest.raises(RecipeError, match=r"hydra\.launcher"):
        optimizer.sweep([recipe], out=tmp_path, launcher={"launcher": "jobless"})
    with pytest.raises(ModelError, match="is no directory"):
        optimizer.compare("./nowhere", {"a": tmp_path})
    assert not list(tmp_path.iterdir())


def test_two_directories_of_one_name_need_names(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="two directories are called 'artifact'"):
        optimizer.compare("demo", [tmp_path / "a" / "artifact", tmp_path / "b" / "artifact"])
