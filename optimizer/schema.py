"""A JSON schema of recipe files, for editors: `python -m optimizer.schema > recipe.schema.json`."""

import json
import sys
from typing import Any

from optimizer.data.texts import DataSettings
from optimizer.evaluation.job import Environment, EvaluationSettings
from optimizer.formats import FORMATS
from optimizer.model.locate import ModelSettings
from optimizer.processes.pipe import until_closed
from optimizer.recipe import PLACES, SEARCH, Output
from optimizer.rows.gates import Gates
from optimizer.search import Range, Search
from optimizer.settings import Settings
from optimizer.stages import KNOBS, STAGES
from optimizer.stages.stage import Routing

_INTERPOLATION = {"type": "string", "pattern": r"\$\{"}


def schema() -> dict[str, Any]:
    """The schema of a recipe file (JSON Schema 2020-12), in which any setting may be an interpolation."""
    groups: dict[str, type[Settings]] = {
        "gates": Gates,
        "model": ModelSettings,
        "data": DataSettings,
        "evaluation": EvaluationSettings,
    }
    properties = {key: _object(kind.model_json_schema()) for key, kind in groups.items()}
    for kind in (Output, Environment):
        properties |= _object(kind.model_json_schema())["properties"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "optimizer recipe",
        "type": "object",
        "properties": properties
        | {
            "name": {"type": "string"},
            "engine": _engine(),
            SEARCH: _search(),
            "defaults": {"type": "array"},
            "allow_nonfinite": _or_interpolation({"type": "array", "items": {"type": "string"}}),
            **_knobs(),
            "stages": {
                "type": "object",
                "properties": {kind: _stage(kind) for kind in STAGES},
                "additionalProperties": {"anyOf": [_stage(kind) for kind in STAGES]},
            },
        },
        # A variable that only the recipe itself refers to is refused too: nothing else tells it from a slip.
        "additionalProperties": False,
    }


def _knobs() -> dict[str, Any]:
    """The knobs, each as the setting of a stage that it stands for."""
    knobs = {name: stage.knob for name, stage in KNOBS.items() if stage.knob}
    return {name: _stage(KNOBS[name].kind)["properties"][knob.setting] for name, knob in knobs.items()}


def _engine() -> dict[str, Any]:
    """The settings that formats have of their own; which of them a recipe may have depends on its format."""
    kinds = [format_.settings for format_ in FORMATS.values() if format_.settings is not None]
    none: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
    return {"anyOf": [none, *(_object(kind.model_json_schema()) for kind in kinds)]}


def _search() -> dict[str, Any]:
    described = _object(Search.model_json_schema())
    choices = [_object(Range.model_json_schema()), {"type": "array"}]
    described["properties"]["ranges"] = {"type": "object", "additionalProperties": {"anyOf": choices}}
    return described


def _stage(kind: str) -> dict[str, Any]:
    described = _object(STAGES[kind].model_json_schema())
    routing = _object(Routing.model_json_schema())["properties"]
    places = {key: {"type": "string"} for key in PLACES}
    described["properties"] = {"stage": {"const": kind}} | places | described["properties"] | routing
    described["title"] = kind
    return described


def _object(described: dict[str, Any]) -> dict[str, Any]:
    inner = {f"#/$defs/{name}": _object(kind) for name, kind in described.get("$defs", {}).items()}
    properties = {key: _or_interpolation(_inlined(value, inner)) for key, value in described["properties"].items()}
    # Nothing is required: a recipe that extends another gives only what differs.
    return {"type": "object", "properties": properties, "additionalProperties": False} | _description(described)


def _inlined(described: dict[str, Any], inner: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A setting's schema, with that of settings within it in place of its name."""
    if "$ref" in described:
        return inner[described["$ref"]]
    choices = {"anyOf": [_inlined(choice, inner) for choice in described["anyOf"]]} if "anyOf" in described else {}
    return described | choices


def _or_interpolation(described: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [described, _INTERPOLATION]}


def _description(described: dict[str, Any]) -> dict[str, Any]:
    return {key: described[key] for key in ("description",) if key in described}


def main() -> int:
    """Print it; the exit code is 0."""
    print(json.dumps(schema(), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(until_closed(main))
