"""Sources: opened once in a command, small on the way to a worker, refused when they have changed."""

import pickle
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from optimizer.data import calibration
from optimizer.errors import ModelError
from optimizer.recipe import parse
from optimizer.runs import source
from optimizer.runs.outlook import look_ahead
from optimizer.runs.plan import Plan, plan

TEXTS = "".join(f"the cat number {number} sees a big red dog today\n" for number in range(1000))


@pytest.fixture
def model(tiny_model, tmp_path: Path) -> Path:
    directory: Path = tiny_model("sequence-classification", tmp_path / "model")
    return directory


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text(TEXTS)
    return path


def recipe(model: Path, texts: Path, amount: float = 0.1) -> dict[str, Any]:
    return {"model": {"path": str(model)}, "data": {"path": str(texts)}, "stages": {"prune": {"amount": amount}}}


def travelled(at: Plan) -> Plan:
    there: Plan = pickle.loads(pickle.dumps(at))
    return there


def counted(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str) -> list[Any]:
    calls: list[Any] = []
    function = getattr(module, name)

    def count(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        return function(*arguments, **options)

    monkeypatch.setattr(module, name, count)
    return calls


def test_many_recipes_on_one_model_and_its_texts_open_them_once(model, texts, tmp_path, monkeypatch) -> None:
    opened, read = counted(monkeypatch, source, "open_checkpoint"), counted(monkeypatch, calibration, "read")
    recipes = [parse(recipe(model, texts, amount)) for amount in (0.1, 0.2, 0.3)]
    assert len(look_ahead(recipes, tmp_path / "out")) == 3
    assert len(opened) == len(read) == 1


def test_a_model_that_is_not_there_is_looked_for_once(model, texts, tmp_path, monkeypatch) -> None:
    looked = counted(monkeypatch, source, "locate")
    lacking = [parse(recipe(tmp_path / "nowhere", texts, amount)) for amount in (0.1, 0.2, 0.3)]
    found = look_ahead([*lacking, parse(recipe(model, texts))], tmp_path / "out")
    assert [outlook.state for outlook in found] == [None] * 3 + ["to do"]
    assert all(outlook.fault for outlook in found[:3])
    assert len(looked) == 2


def test_what_travels_to_a_worker_is_small_and_opens_there_again(model, texts) -> None:
    at = plan(parse(recipe(model, texts)))
    assert len(pickle.dumps(at)) < len(TEXTS) / 10
    there = travelled(at)
    assert there.source.checkpoint.places == at.source.checkpoint.places
    assert there.source.checkpoint.fingerprint == at.source.fingerprint


def test_a_worker_that_finds_another_original_refuses_it(model, texts, tiny_model) -> None:
    there = travelled(plan(parse(recipe(model, texts))))
    tiny_model("sequence-classification", model, initializer_range=0.7)
    with pytest.raises(ModelError, match=r"model: has changed since the command began; run the command again$"):
        _ = there.source.checkpoint


def test_a_copy_with_other_times_is_the_same_original(model, texts) -> None:
    at = plan(parse(recipe(model, texts)))
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes())
    at.source.check_unchanged()
