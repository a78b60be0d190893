"""What must not change: the bytes and run ids of every shipped recipe, and that artifacts of old still load.

Where they are meant to change: python tests/golden/rewrite.py, and say in the commit why.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import golden_artifacts
import golden_models
import golden_record
import pytest
import transformers

import optimizer

# Twenty seconds of computing each: one model with every recipe and format is enough for the fast suite.
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in golden_models.GOLDEN if name != "bert"]
ANSWERS = golden_artifacts.answers()
FLOAT = 1e-4
"""How far logits may be from those stored, as a share of the largest: other machines add in another order."""
BITSANDBYTES = 2e-2
"""The same where bitsandbytes multiplies: it rounds activations to 8 bits, and a last bit can tip one over."""


@pytest.mark.parametrize("model", ["bert", *SLOW])
def test_every_recipe_and_format_gives_the_bytes_and_run_ids_of_before(model) -> None:
    expected = json.loads(golden_record.stored(model).read_text())
    changes = list(_changes(expected, golden_record.record(model), model))
    assert not changes, "\n".join(["not as before:", *changes])


def _changes(expected: Any, found: Any, where: str) -> Iterator[str]:
    """A line for every value that differs: model, recipe, format, file."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in sorted(expected | found):
            yield from _changes(expected.get(key, "nothing"), found.get(key, "nothing"), f"{where} {key}")
    elif expected != found:
        yield f"{where}: was {_short(expected)}, is {_short(found)}"


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)[:80]


@pytest.fixture(params=ANSWERS, ids=lambda path: f"{path.parent.name}-{path.name}")
def artifact(request) -> Path:
    """An artifact as it was committed."""
    return request.param


def test_a_committed_artifact_is_as_it_was_made(artifact) -> None:
    listed = json.loads((artifact / "manifest.json").read_text())["files"]
    present = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in artifact.iterdir()}
    assert {name: figures["sha256"] for name, figures in listed.items()} == {
        name: digest for name, digest in present.items() if name != "manifest.json"
    }


@pytest.mark.parametrize(
    "load",
    [optimizer.load, transformers.AutoModelForSequenceClassification.from_pretrained],
    ids=["load", "pretrained"],
)
def test_a_committed_artifact_loads_and_answers_as_it_did(artifact, load) -> None:
    expected = ANSWERS[artifact]
    bound = BITSANDBYTES if '"bitsandbytes"' in (artifact / "config.json").read_text() else FLOAT
    found = golden_artifacts.logits(load(artifact).eval())
    assert (found - expected).abs().max() <= bound * expected.abs().max()
