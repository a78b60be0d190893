"""Gates: judged by what was measured."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from optimizer.rows.gates import GATES, Gates, missed_gates
from optimizer.rows.row import Row


def row(**figures: Any) -> Row:
    return Row(**{"run_id": "a-1", "status": "ok", "data": "texts"} | figures)


MET: list[tuple[dict[str, float], dict[str, Any]]] = [
    ({}, {}),
    ({"agreement": 0.99}, {"agreement": 0.99}),
    ({"agreement": 1.0}, {"agreement": 1.0}),
    ({"agreement": 0.0}, {"agreement": 0.0}),
    ({"agreement_low": 0.9}, {"agreement_low": 0.95, "agreement": 0.99}),
    ({"size_ratio": 0.5}, {"size_ratio": 0.5}),
    ({"size_ratio": 0.5}, {"size_ratio": 0.1}),
    ({"speedup": 1.0}, {"speedup": 1.0}),
    ({"speedup": 1.5}, {"speedup": 1.4, "speedup_low": 1.3, "speedup_high": 1.5}),
    ({"accuracy_drop": 0.0}, {"accuracy": 0.9, "original_accuracy": 0.9}),
    ({"accuracy_drop": 0.0}, {"accuracy": 0.95, "original_accuracy": 0.9}),
    ({"accuracy_drop": 0.05}, {"accuracy": 0.85, "original_accuracy": 0.9}),
    ({"accuracy_drop": -0.05}, {"accuracy": 0.95, "original_accuracy": 0.9}),
]


@pytest.mark.parametrize(("gates", "figures"), MET)
def test_met(gates: dict[str, float], figures: dict[str, Any]) -> None:
    assert missed_gates(gates, row(**figures)) is None


MISSED: list[tuple[dict[str, float], dict[str, Any], str]] = [
    ({"agreement": 0.99}, {"agreement": 0.97}, "agreement 0.9700 misses the gate 0.99 by 0.0200"),
    ({"agreement_low": 0.99}, {"agreement_low": 0.5}, "agreement_low 0.5000 misses the gate 0.99 by 0.4900"),
    ({"size_ratio": 0.5}, {"size_ratio": 0.625}, "size_ratio 0.6250 misses the gate 0.5 by 0.1250"),
    ({"speedup": 1.5}, {"speedup": 0.75}, "speedup 0.7500 misses the gate 1.5 by 0.7500"),
    (
        {"speedup": 1.5},
        {"speedup": 1.2, "speedup_low": 1.0, "speedup_high": 1.25},
        "speedup 1.2500 at best misses the gate 1.5 by 0.2500",
    ),
    (
        {"accuracy_drop": 0.01},
        {"accuracy": 0.5, "original_accuracy": 0.75},
        "accuracy_drop 0.2500 misses the gate 0.01 by 0.2400",
    ),
    ({"agreement": 0.99}, {"agreement": math.nan}, "agreement nan misses the gate 0.99 by inf"),
]


@pytest.mark.parametrize(("gates", "figures", "line"), MISSED)
def test_missed_and_by_how_much(gates: dict[str, float], figures: dict[str, Any], line: str) -> None:
    assert missed_gates(gates, row(**figures)) == line


@pytest.mark.parametrize("gate", ["agreement", "agreement_low", "size_ratio", "speedup", "accuracy_drop"])
def test_what_was_not_measured_meets_no_gate(gate: str) -> None:
    assert missed_gates({gate: 0.5}, row()) == f"{gate} was not measured, gate 0.5"


@pytest.mark.parametrize("figures", [{"accuracy": 0.9}, {"original_accuracy": 0.9}])
def test_a_drop_needs_both_accuracies(figures: dict[str, Any]) -> None:
    assert missed_gates({"accuracy_drop": 0.5}, row(**figures)) == "accuracy_drop was not measured, gate 0.5"


@pytest.mark.parametrize("gate", ["agreement", "agreement_low"])
def test_agreement_on_random_inputs_meets_no_gate(gate: str) -> None:
    line = missed_gates({gate: 0.5}, row(data="random", agreement=1.0, agreement_low=1.0))
    assert line == f"{gate} rests on random inputs, which never satisfy the gate 0.5; write data.path=FILE"


def test_random_inputs_are_good_enough_for_the_other_gates() -> None:
    assert missed_gates({"size_ratio": 0.5, "speedup": 1}, row(data="random", size_ratio=0.5, speedup=1.0)) is None


def test_every_miss_is_told() -> None:
    line = missed_gates({"agreement": 0.99, "size_ratio": 0.5, "speedup": 1}, row(agreement=0.5, size_ratio=0.5))
    assert line == "agreement 0.5000 misses the gate 0.99 by 0.4900; speedup was not measured, gate 1"


def test_the_command_line_knows_every_gate() -> None:
    config = OmegaConf.load(Path(__file__).parents[2] / "conf" / "config.yaml")
    assert config.gates == Gates().model_dump()
    assert GATES.keys() < config.gates.keys()


def test_the_documents_say_from_which_side_each_gate_bounds() -> None:
    page = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text()
    (table,) = re.findall(r"^\| of \| at least \| at most \|\n(.*?)\n\n", page, re.MULTILINE | re.DOTALL)
    cells = [line.split("|")[2:4] for line in table.splitlines()[1:]]
    lower, upper = (
        {name for cell in side for name in re.findall(r"`(\w+)`", cell)} for side in zip(*cells, strict=True)
    )
    lower.discard("data")
    assert lower == {name for name, gate in GATES.items() if gate.bound == "at least"}
    assert upper == {name for name, gate in GATES.items() if gate.bound == "at most"}
