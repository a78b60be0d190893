"""`import optimizer`: quick, and all that transformers needs to load packed artifacts, whichever comes first."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from optimizer.artifact.write import write
from optimizer.composing import CONF, compose
from optimizer.model.checkpoint import open_checkpoint
from optimizer.model.loading import load
from optimizer.recipe import Recipe, parse

SECONDS = 1.0
RECIPES = sorted(path.stem for path in (CONF / "recipe").glob("*.yaml"))
ORDERS = {
    "ours first": "import optimizer\nimport transformers",
    "theirs first": "import transformers.quantizers.auto\nimport optimizer",
    "the plug-in itself first": "import optimizer.packing.plugin",
}
LIGHT = """
import sys, time
start = time.perf_counter()
import optimizer
print(time.perf_counter() - start)
print(*sorted({"torch", "transformers", "numpy", "hydra", "pydantic"} & set(sys.modules)))
"""
LOADING = """
import json, sys
import torch
from transformers import AutoModelForSequenceClassification
from transformers.quantizers import auto

job = json.load(open(sys.argv[1]))
methods = [*auto.AUTO_QUANTIZER_MAPPING, *auto.AUTO_QUANTIZATION_CONFIG_MAPPING]
methods = [method for method in methods if method.startswith("optimizer_")]
found = {"methods": methods, "logits": {}, "errors": {}, "imported": {}}
for name, directory in job["artifacts"].items():
    try:
        model = AutoModelForSequenceClassification.from_pretrained(directory)
    except Exception as error:
        found["errors"][name] = f"{type(error).__name__}: {error}"
        continue
    with torch.no_grad():
        found["logits"][name] = model(input_ids=torch.tensor(job["input_ids"])).logits.tolist()
    found["imported"][name] = "bitsandbytes" in sys.modules
json.dump(found, sys.stdout)
"""


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", script, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True)


def shipped(name: str, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.setattr(sys, "argv", ["optimizer"])
    (values,) = compose([f"recipe={name}"])
    return parse({key: values[key] for key in ("name", "stages", "format")})


def texts() -> list[dict[str, torch.Tensor]]:
    """What is calibrated on."""
    ids = [torch.arange(4 + number % 3)[None] * 5 % tiny.VOCABULARY for number in range(24)]
    return [{"input_ids": each, "attention_mask": torch.ones_like(each), "token_type_ids": each * 0} for each in ids]


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny model in the form of every shipped recipe that packs; those without bitsandbytes first."""
    directory = tmp_path_factory.mktemp("packed")
    original = tiny.save(tiny.bert(), directory / "original")
    with pytest.MonkeyPatch.context() as monkeypatch:
        recipes = [shipped(name, monkeypatch) for name in RECIPES]
    packed = [recipe for recipe in recipes if recipe.output.format == "packed"]
    packed.sort(key=lambda recipe: any(step.stage.kind == "bitsandbytes" for step in recipe.steps))
    for recipe in packed:
        staged = recipe.staged(open_checkpoint(original), original.name, lambda line: None, texts)
        write(staged, directory / recipe.name)
    assert {"packed_fp16", "compact", "balanced", "aggressive"} <= {recipe.name for recipe in packed}
    return {recipe.name: directory / recipe.name for recipe in packed}


@pytest.fixture
def job(artifacts: dict[str, Path], tmp_path: Path) -> str:
    values: dict[str, Any] = {
        "artifacts": {name: str(directory) for name, directory in artifacts.items()},
        "input_ids": tiny.INPUTS["input_ids"].tolist(),
    }
    (tmp_path / "job.json").write_text(json.dumps(values))
    return str(tmp_path / "job.json")


def test_it_is_quick_and_imports_neither_torch_nor_transformers() -> None:
    seconds, imported = run(LIGHT).stdout.splitlines()
    assert imported == ""
    assert float(seconds) < SECONDS


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
def test_a_fresh_process_loads_every_packed_recipe(artifacts: dict[str, Path], job: str, order: str) -> None:
    found = json.loads(run(ORDERS[order] + LOADING, job).stdout)
    assert sorted(found["methods"]) == [
        "optimizer_packed",
        "optimizer_packed",
        "optimizer_packed_4bit",
        "optimizer_packed_8bit",
    ]
    assert found["errors"] == {}
    assert not found["imported"]["compact"], "bitsandbytes takes seconds to import, and this recipe has no use for it"
    for name, directory in artifacts.items():
        with torch.no_grad():
            assert found["logits"][name] == load(directory)(**tiny.INPUTS).logits.tolist()


@pytest.mark.slow
def test_without_it_loading_fails(artifacts: dict[str, Path], job: str) -> None:
    """Never random weights, and the error itself says what to write."""
    finished = run(LOADING, job)
    found = json.loads(finished.stdout)
    assert found["methods"] == []
    assert found["logits"] == {}
    assert set(found["errors"]) == set(artifacts)
    for error in found["errors"].values():
        assert error.startswith('ValueError: Specified `attn_implementation="packed; write import optimizer first"` is')
    assert "MISMATCH" not in finished.stderr


@pytest.mark.slow
def test_without_it_loading_fails_of_artifacts_of_old(tmp_path: Path) -> None:
    """Each payload has another shape than its weight."""
    old = Path(__file__).parent / "golden" / "artifacts" / "format_1"
    values = {"artifacts": {path.name: str(path) for path in old.glob("*_packed")}, "input_ids": [[2, 4]]}
    (tmp_path / "job.json").write_text(json.dumps(values))
    finished = run(LOADING, str(tmp_path / "job.json"))
    errors = json.loads(finished.stdout)["errors"]
    assert len(errors) == 3
    for error in errors.values():
        assert error.startswith("RuntimeError: You set `ignore_mismatched_sizes` to `False`")
    assert "MISMATCH" in finished.stderr
