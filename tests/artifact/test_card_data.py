"""The card's front matter: as huggingface_hub reads it, as the hub takes it, and nothing that was not measured."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_hub import check_card
from huggingface_hub import ModelCard

from optimizer.artifact.card import write_card
from optimizer.manifest import FORMAT_VERSION, Manifest
from optimizer.rows.row import Row

MANIFEST = Manifest(FORMAT_VERSION, "dense", "team/tickets", "ab" * 32, 1000, 10, {}, {}, original_commit="c" * 40)
THEIRS = {
    "license": "other",
    "license_name": "ours-1.0",
    "license_link": "LICENSE",
    "language": ["de", "en"],
    "tags": ["intents", "support"],
    "library_name": "sentence-transformers",
    "base_model": "somebody/else",
    "datasets": ["team/texts"],
    "model-index": [{"name": "of another model", "results": []}],
}
MEASURED = Row(
    run_id="a-1",
    status="ok",
    data="team/texts (en, test)",
    agreement=0.9962,
    accuracy=0.91,
    size_ratio=0.184,
    perplexity=float("inf"),
    latency_ms_p50=3.7,
)


def card(directory: Path, manifest: Manifest = MANIFEST, figures: Row | None = None, theirs: str | None = None) -> Any:
    if theirs is not None:
        (directory / "README.original.md").write_text(theirs, encoding="utf-8")
    config = {"architectures": ["BertForSequenceClassification"], "model_type": "bert"}
    (directory / "config.json").write_text(json.dumps(config))
    write_card(directory, manifest, {"name": "half", "stages": {}}, figures)
    text = (directory / "README.md").read_text(encoding="utf-8")
    assert check_card(text) == []
    return ModelCard(text).data


def front(values: dict[str, Any]) -> str:
    return f"---\n{yaml.safe_dump(values)}---\n# Tickets\n"


def test_what_it_was_made_from_is_a_model_of_the_hub(tmp_path: Path) -> None:
    data = card(tmp_path)
    assert data.base_model == "team/tickets"
    assert data.base_model_relation == "quantized"
    assert (data.library_name, data.pipeline_tag) == ("transformers", "text-classification")
    assert data.tags == ["transformer-optimizer", "dense"]
    assert data.license is None


def test_an_original_of_this_machine_is_no_base_model(tmp_path: Path) -> None:
    data = card(tmp_path, replace(MANIFEST, original="tickets", original_commit=None), theirs=front(THEIRS))
    assert data.base_model is None
    assert "base_model_relation" not in data


def test_licence_and_tags_are_the_originals(tmp_path: Path) -> None:
    data = card(tmp_path, theirs=front(THEIRS))
    kept = ("license", "license_name", "license_link", "language", "library_name")
    assert {key: data[key] for key in kept} == {key: THEIRS[key] for key in kept}
    assert data.tags == ["intents", "support", "transformer-optimizer", "dense"]
    assert data.base_model == "team/tickets"
    assert data.datasets is None
    assert data.eval_results is None


def test_what_only_this_package_loads_says_so(tmp_path: Path) -> None:
    data = card(tmp_path, replace(MANIFEST, format="packed"), theirs=front(THEIRS))
    assert data.library_name == "transformer-optimizer"
    assert card(tmp_path, replace(MANIFEST, format="onnx")).library_name == "sentence-transformers"


@pytest.mark.parametrize(
    "theirs",
    [
        "# No front matter\n",
        "---\n- a\n- list\n---\n",
        "---\n{: not yaml\n---\n",
        "---\n---\n",
        front({"license": {"a": 1}, "tags": "one", "language": [1], "library_name": ""}),
        front({"license": None, "tags": [["nested"], 3, "one"]}),
    ],
)
def test_a_card_that_the_hub_would_not_take_gives_what_it_can(theirs: str, tmp_path: Path) -> None:
    data = card(tmp_path, theirs=theirs)
    assert data.license is None
    assert data.tags == [*(["one"] if "one" in theirs else []), "transformer-optimizer", "dense"]
    assert data.library_name == "transformers"


def test_results_are_what_was_measured(tmp_path: Path) -> None:
    data = card(tmp_path, figures=MEASURED)
    assert data.model_name == "team/tickets, half"
    found = {result.metric_type: result.metric_value for result in data.eval_results}
    assert found == {"agreement": 0.9962, "accuracy": 0.91, "size_ratio": 0.184}
    for result in data.eval_results:
        assert result.task_type == "text-classification"
        assert (result.dataset_type, result.dataset_name) == ("team/texts", "team/texts (en, test)")
    assert card(tmp_path, figures=Row(run_id="a-1", status="ok")).eval_results is None


def test_texts_of_a_file_are_named_as_the_hub_can(tmp_path: Path) -> None:
    (result, *_) = card(tmp_path, figures=replace(MEASURED, data="held out (1).jsonl")).eval_results
    assert (result.dataset_type, result.dataset_name) == ("held-out", "held out (1).jsonl")


def test_a_model_whose_task_nobody_knows_has_a_card(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["Unheard"]}')
    write_card(tmp_path, MANIFEST, {"name": "half", "stages": {}}, MEASURED)
    data = ModelCard.load(tmp_path / "README.md").data
    assert (data.pipeline_tag, data.eval_results) == (None, None)
