"""A float graph is held against the model that it was converted from, before it is quantized or written."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from transformers import LlamaForSequenceClassification

from optimizer.engines.reduce import Exported
from optimizer.errors import ArtifactError
from optimizer.formats.engine import check_graph


@pytest.fixture(scope="module")
def module() -> Exported:
    return Exported(tiny.bert().eval(), "sequence-classification")


def graph(module: Exported, change: Callable[[torch.Tensor, int], torch.Tensor]) -> Any:
    """What answers as the module does, but for a change that knows how many tokens there are."""
    return lambda **inputs: {"logits": change(module(**inputs), inputs["input_ids"].shape[1])}


def test_rounding_is_no_difference(module: Exported) -> None:
    check_graph(graph(module, lambda logits, tokens: logits * (1 + 3e-5)), module, "onnx")


def test_one_answer_near_zero_is_no_measure(module: Exported) -> None:
    regression = Exported(tiny.bert(num_labels=1).eval(), "sequence-classification")
    near = regression(torch.full((1, 7), 3), torch.ones(1, 7).long(), torch.zeros(1, 7).long()).item()
    regression.model.classifier.bias.data -= near
    check_graph(graph(regression, lambda logits, tokens: logits + 1e-6), regression, "onnx")


@pytest.mark.parametrize("tokens", [7, 32])
@pytest.mark.parametrize("wrong", [3e-3, -1.0, torch.nan, torch.inf])
def test_another_answer_at_a_single_length_is_refused(module: Exported, tokens: int, wrong: float) -> None:
    def change(logits: torch.Tensor, length: int) -> torch.Tensor:
        return logits + wrong * logits.abs().max() if length == tokens else logits

    with pytest.raises(
        ArtifactError, match=r"^format: an onnx graph of BertForSequenceClassification answers otherwise"
    ):
        check_graph(graph(module, change), module, "onnx")


@pytest.mark.parametrize(("format", "precision"), [("openvino", "int8_weights"), ("onnx", "int8_dynamic")])
def test_what_tracing_keeps_of_one_example(
    format: str, precision: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Funnel pools its positions into constants."""
    line = (
        f"format: an {format} graph of FunnelForSequenceClassification fails at other numbers of texts and tokens than "
        "it was traced with; write recipe=compact"
    )
    original = tiny.save(tiny.funnel(), tmp_path / "model")
    with pytest.raises(ArtifactError, match=f"^{re.escape(line)}$"):
        tiny.optimize(original, tmp_path / "artifact", {}, format=format, engine={"precision": precision})
    assert not (tmp_path / "artifact").exists()
    assert "onnxruntime" not in capfd.readouterr().err


def test_what_the_converter_does_not_know_is_told_without_places_in_its_source(tmp_path: Path) -> None:
    config = tiny.llama().config
    config.pad_token_id = 0
    original = tiny.save(LlamaForSequenceClassification(config), tmp_path / "model")
    line = "openvino: cannot convert LlamaForSequenceClassification: Model wasn't fully converted; write recipe=compact"
    with pytest.raises(ArtifactError, match=f"^{re.escape(line)}$"):
        tiny.optimize(original, tmp_path / "artifact", {}, format="openvino", engine={"precision": "int8_weights"})
