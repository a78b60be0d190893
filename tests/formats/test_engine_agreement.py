"""An int8 graph that falls short of the agreement asked for computes its worst operations in float."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import optimizer
from optimizer.errors import RecipeError
from optimizer.model.loading import load
from optimizer.model.task import Task

pytest.importorskip("openvino")
pytest.importorskip("nncf")
pytest.importorskip("onnxruntime")

FORMATS = ("openvino", "onnx", "packed_openvino")
WORST = "bert.encoder.layer.0.attention.self"  # a pattern: ONNX has strokes
BAR = 0.95


@pytest.fixture(scope="module")
def texts(sentences: Callable[[int], Path]) -> Path:
    return sentences(400)


def sensitive(tiny_model: Callable[..., Path], directory: Path, task: Task = "sequence-classification") -> Path:
    """A model whose first attention has one number in its queries that is so large that int8 forgets the others.

    Keys make up for it, so that the float model answers as before.
    """
    model: Any = load(tiny_model(task, directory, initializer_range=0.2))
    attention = model.bert.encoder.layer[0].attention.self
    with torch.no_grad():
        for linear, factor in ((attention.query, 3000.0), (attention.key, 1 / 3000)):
            linear.weight[0] *= factor
            linear.bias[0] *= factor
    model.save_pretrained(directory)
    return directory


@pytest.fixture
def run(tmp_path: Path, texts: Path) -> Callable[..., tuple[dict[str, Any], list[str], Path]]:
    """`run(model, format, agreement, **recipe)`: the row, what the log says of agreement, the artifact."""

    def run(
        model: Path, format: str, agreement: float | None = None, **changes: Any
    ) -> tuple[dict[str, Any], list[str], Path]:
        recipe = {
            "model": {"path": str(model)},
            "data": {"path": str(texts)},
            "format": format,
            "engine": {"precision": "int8"}
            | ({} if agreement is None else {"agreement": agreement})
            | changes.pop("engine", {}),
            "evaluation": {"repetitions": 0},
            "threads": 1,
        }
        out = tmp_path / "out"
        row = optimizer.run(recipe | changes, out=out).iloc[0]
        assert row["status"] == "ok", row["error"]
        log = (out / "runs" / row["run_id"] / "run.log").read_text().splitlines()
        said = [line.partition(" INFO ")[2] for line in log if "INFO agreement" in line]
        return dict(row), said, out / row["artifact"]

    return run


@pytest.mark.parametrize("format", ["openvino", "onnx"])
def test_the_worst_operation_is_in_float_again_so_that_answers_agree(
    run: Callable[..., Any], tiny_model: Callable[..., Path], tmp_path: Path, format: str
) -> None:
    model = sensitive(tiny_model, tmp_path / "model")
    plain, silent, _ = run(model, format)
    mixed, (line,), _ = run(model, format, BAR)
    assert silent == []
    assert plain["agreement"] < 0.85
    assert mixed["agreement"] > 0.92
    assert line.startswith("agreement 0.")
    assert re.search(rf" with \d of 1\d groups of operations in float again: {WORST}", line)
    assert mixed["artifact_bytes"] < 1.1 * plain["artifact_bytes"]
    assert mixed["run_id"] != plain["run_id"]


def test_what_is_in_float_again_keeps_the_codes_of_the_stage_as_weights(
    run: Callable[..., Any], tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    """So it answers as they do, all of them, and the file is no larger."""
    model, stages = tiny_model("sequence-classification"), {"quantize": {"bits": 8}}
    engine = {"compute": "float32"}
    plain, _, _ = run(model, "packed_openvino", stages=stages, engine=engine)
    mixed, (line,), _ = run(model, "packed_openvino", 1, stages=stages, engine=engine)
    assert " 1.0000 with " in line
    assert mixed["artifact_bytes"] <= 1.01 * plain["artifact_bytes"]
    assert mixed["agreement"] > plain["agreement"]


def test_int8_that_agrees_stays_as_it_is(run: Callable[..., Any], tiny_model: Callable[..., Path]) -> None:
    model = tiny_model("sequence-classification")
    _, _, plain = run(model, "openvino")
    _, (line,), mixed = run(model, "openvino", 0.5)
    assert line.endswith("on the 80 calibration texts, all in int8")
    for name in ("openvino_model.xml", "openvino_model.bin"):
        assert (plain / name).read_bytes() == (mixed / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("task", ["token-classification", "question-answering", "encoder"])
def test_tokens_spans_and_embeddings_are_answers_too(
    run: Callable[..., Any], tiny_model: Callable[..., Path], task: Task
) -> None:
    _, (line,), _ = run(tiny_model(task), "openvino", 0.5)
    assert line.endswith("on the 80 calibration texts, all in int8")


# refusals


@pytest.mark.parametrize("format", FORMATS)
def test_an_agreement_is_for_int8(tmp_path: Path, format: str) -> None:
    with pytest.raises(RecipeError) as caught:
        optimizer.run({"format": format, "engine": {"precision": "float32", "agreement": 0.99}}, out=tmp_path)
    assert str(caught.value) == "engine: agreement is for precision: int8, not for float32; remove one of the two"


@pytest.mark.slow
def test_scores_are_answers_too(run: Callable[..., Any], tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    row, (line,), _ = run(tiny_model("sequence-classification", tmp_path / "model", num_labels=1), "openvino", 0.5)
    assert line.endswith("on the 80 calibration texts, all in int8")
    assert row["spearman"] > 0.5
