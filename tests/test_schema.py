"""The JSON schema of recipes: editors can read it, every shipped recipe meets it, a wrong one does not."""

import json
import operator
import re
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from optimizer.recipe import KEYS
from optimizer.schema import schema
from optimizer.stages import STAGES

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "conf" / "recipe").glob("*.yaml"))
KNOBS = {"pruning_amount", "threshold"}
ANNOTATIONS = {"$schema", "title", "description", "default"}
TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "null": type(None),
}
BOUNDS: dict[str, Callable[[Any, Any], bool]] = {
    "minimum": operator.ge,
    "maximum": operator.le,
    "exclusiveMinimum": operator.gt,
    "exclusiveMaximum": operator.lt,
    "minItems": lambda value, bound: len(value) >= bound,
    "minLength": lambda value, bound: len(value) >= bound,
    "pattern": lambda value, bound: re.search(bound, value) is not None,
    "const": operator.eq,
    "enum": lambda value, choices: value in choices,
}
STRUCTURE = {"type", "anyOf", "properties", "additionalProperties", "items"}


def faults(value: Any, described: dict[str, Any], where: str = "") -> Iterator[str]:
    """Where `value` does not meet a schema, of the keywords that ours uses."""
    if "type" in described and not is_a(value, described["type"]):
        yield f"{where}: {value!r} is no {described['type']}"
        return
    if "anyOf" in described and all(any(faults(value, choice)) for choice in described["anyOf"]):
        yield f"{where}: {value!r} is none of the choices"
    for keyword, meets in BOUNDS.items():
        if keyword in described and not meets(value, described[keyword]):
            yield f"{where}: {value!r} against {keyword} {described[keyword]!r}"
    if isinstance(value, dict):
        yield from _faults_of_keys(value, described, where)
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from faults(item, described.get("items", {}), f"{where}[{index}]")


def _faults_of_keys(value: dict[str, Any], described: dict[str, Any], where: str) -> Iterator[str]:
    others = described.get("additionalProperties", {})
    for key, inner in value.items():
        known = described.get("properties", {}).get(key, others)
        if known is False:
            yield f"{where}: unknown key {key}"
        else:
            yield from faults(inner, known, f"{where}.{key}")


def is_a(value: Any, kind: str) -> bool:
    """Whether a value is of a JSON type; in Python, a boolean is an integer too."""
    return isinstance(value, TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def check(described: Any) -> None:
    """That a schema is one by JSON Schema 2020-12, and that `faults` understands every keyword in it."""
    assert isinstance(described, dict)
    assert set(described) <= {*STRUCTURE, *BOUNDS, *ANNOTATIONS}
    assert described.get("type", "object") in TYPES
    re.compile(described.get("pattern", ""))
    for keyword in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "minItems"):
        assert is_a(described.get(keyword, 0), "number")
    for keyword in ("anyOf", "enum"):
        assert isinstance(described.get(keyword, []), list)
        assert described.get(keyword, ["something"])
    parts = [*described.get("anyOf", []), *described.get("properties", {}).values()]
    parts += [described[key] for key in ("items", "additionalProperties") if key in described]
    for part in parts:
        if part is not False:
            check(part)


def recipe(path: Path) -> dict[str, Any]:
    """The values of a recipe file, interpolations as they are written."""
    values = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def test_it_is_a_schema() -> None:
    check(schema())


def test_the_command_prints_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delitem(sys.modules, "optimizer.schema")
    with pytest.raises(SystemExit, match="0"):
        runpy.run_module("optimizer.schema", run_name="__main__")
    assert json.loads(capsys.readouterr().out) == schema()


def test_it_names_every_key_of_a_recipe_and_every_stage_with_its_settings() -> None:
    described = schema()["properties"]
    assert set(described) == {*KEYS, *KNOBS, "defaults", "search"}
    stages = {
        stage["title"]: set(stage["properties"]) for stage in described["stages"]["additionalProperties"]["anyOf"]
    }
    routing = {"stage", "before", "after", "only", "skip", "roles", "optional"}
    assert stages == {kind: set(stage.model_fields) | routing for kind, stage in STAGES.items()}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_meets_it(path: Path) -> None:
    values = recipe(path)
    assert list(faults(values, schema())) == []


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"stages": {"prune": {"amont": 0.3}}}, ".stages.prune"),
        ({"stages": {"prune": {"amount": 2}}}, ".stages.prune.amount"),
        ({"stages": {"again": {"stage": "prune", "amount": 2}}}, ".stages.again"),
        ({"stages": {"cast": {"dtype": "float8"}}}, ".stages.cast.dtype"),
        ({"stages": {"cast": {"roles": ["lineal"]}}}, ".stages.cast.roles"),
        ({"stages": ["prune"]}, ".stages"),
        ({"format": "zip"}, ".format"),
        ({"gates": {"agrement": 0.9}}, ".gates"),
        ({"gates": {"agreement": 1.5}}, ".gates.agreement"),
        ({"data": {"limit": 0}}, ".data.limit"),
        ({"threads": 0}, ".threads"),
        ({"pruning_amount": 2}, ".pruning_amount"),
        ({"stagse": {}}, ""),
        ({"evaluation": {"grid": {"batch_sizes": [0]}}}, ".evaluation.grid"),
        ({"evaluation": {"grid": {"batches": [1]}}}, ".evaluation.grid"),
    ],
)
def test_a_wrong_recipe_does_not(values: dict[str, Any], where: str) -> None:
    (fault,) = faults(values, schema())
    assert fault.startswith(f"{where}:")


@pytest.mark.parametrize(
    "values",
    [
        {"stages": {"prune": {"amount": "${pruning_amount}", "only": ["*.weight"], "roles": ["linear", "embedding"]}}},
        {"stages": {"again": {"stage": "prune", "amount": 0.1}}},
        {"gates": {"agreement": None}, "data": {"limit": 7, "text": ["first", "second"]}, "format": "packed"},
        {"evaluation": {"grid": {"batch_sizes": [1, 8], "lengths": [32]}, "stream": "${data.limit}"}},
        {"defaults": ["balanced", {"override /model": "local"}, "_self_"]},
        {"pruning_amount": 0.2, "threshold": "${other}", "allow_nonfinite": ["*.mask"]},
    ],
)
def test_a_right_recipe_does(values: dict[str, Any]) -> None:
    assert list(faults(values, schema())) == []
