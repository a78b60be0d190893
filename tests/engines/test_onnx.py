"""ONNX Runtime's graphs answer as torch does, at batch sizes and lengths that they were not converted with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

pytest.importorskip("onnx", reason="needs the extra onnx")
pytest.importorskip("onnxruntime", reason="needs the extra onnx")
pytest.importorskip("nncf", reason="needs the extra onnx")

from optimizer.engines.onnx import GRAPH, Precision, convert, quantize
from optimizer.engines.onnx_runnable import OnnxRunnable
from optimizer.engines.reduce import Exported, reduce
from optimizer.errors import ArtifactError, RecipeError
from optimizer.model.task import Task
from tests.engines.families import deberta
from tests.engines.models import assert_answers_alike, calibration, example_inputs, inputs, model_of

ENCODERS: list[Task] = [
    "sequence-classification", "token-classification", "question-answering", "masked-lm", "encoder",
]  # fmt: skip


def runnable(model: Any, folder: Path, precision: Precision = "float32", **options: Any) -> OnnxRunnable:
    """The model as it runs in this precision, its files in `folder`."""
    plain = folder / "plain.onnx"
    convert(model, example_inputs(), plain)
    quantize(plain, folder / GRAPH, precision, calibration())
    return OnnxRunnable(folder / GRAPH, model.config, threads=1, **options)


@pytest.mark.parametrize("task", ENCODERS)
@pytest.mark.usefixtures("small_batches_are_shared")
def test_answers_as_torch_does(task: Task, tmp_path: Path, tiny_model: Callable[..., Path]) -> None:
    model = model_of(tiny_model(task))
    runnable(model, tmp_path)
    for streams in (1, 3):
        engine = OnnxRunnable(tmp_path / GRAPH, model.config, threads=1, streams=streams)
        assert_answers_alike(engine, model)


@pytest.mark.parametrize("precision", [one for one in get_args(Precision) if one != "float32"])
def test_precisions_come_close(precision: Precision, tmp_path: Path, tiny_model: Callable[..., Path]) -> None:
    model = model_of(tiny_model("sequence-classification", tmp_path / "model", initializer_range=0.1))
    engine = runnable(model, tmp_path, precision)
    given = inputs([12, 4, 7, 9, 9, 3])
    with torch.no_grad():
        expected = model(**given).logits
    apart = (engine(**given).logits - expected).abs().mean() / expected.std()
    assert 0 < apart < {"int8": 0.25, "int8_dynamic": 0.15}[precision]


@pytest.mark.parametrize("reduced", [True, False])
def test_positions_of_deberta_beside_int8(reduced: bool, tmp_path: Path) -> None:
    model = deberta(initializer_range=0.1)
    task: Task = "sequence-classification"
    module = reduce(model, task, lambda line: None) if reduced else Exported(model, task)
    texts = [{name: text[name] for name in module.inputs} for text in (example_inputs(), *calibration())]
    convert(module, texts[0], tmp_path / "plain.onnx")
    quantize(tmp_path / "plain.onnx", tmp_path / GRAPH, "int8", texts[1:])
    engine = OnnxRunnable(tmp_path / GRAPH, model.config, threads=1)
    given = inputs([12, 4, 7, 9, 9, 3])
    with torch.no_grad():
        expected = model(**given).logits
    assert 0 < (engine(**given).logits - expected).abs().mean() / expected.std() < 0.25


@pytest.mark.parametrize("precision", get_args(Precision))
def test_answer_depends_on_its_own_text_alone_unless_dynamic(
    precision: Precision, tmp_path: Path, tiny_model: Callable[..., Path]
) -> None:
    engine = runnable(model_of(tiny_model("sequence-classification")), tmp_path, precision)
    batch = inputs([9, 4, 7, 2], length=12)
    together = engine(**batch).logits
    largest = 0.0
    for row, length in enumerate([9, 4, 7, 2]):
        alone = engine(**{name: value[row : row + 1, :length] for name, value in batch.items()}).logits
        largest = max(largest, (alone[0] - together[row]).abs().max().item())
    assert largest > 1e-3 if precision == "int8_dynamic" else largest < 1e-4


def test_in_a_pipeline(tmp_path: Path, tiny_model: Callable[..., Path]) -> None:
    from transformers import AutoTokenizer, pipeline

    directory = tiny_model("sequence-classification")
    model, tokenizer = model_of(directory), AutoTokenizer.from_pretrained(directory)
    make: Any = pipeline
    (found,) = make("text-classification", model=runnable(model, tmp_path), tokenizer=tokenizer)("the big cat")
    (expected,) = make("text-classification", model=model, tokenizer=tokenizer, device="cpu")("the big cat")
    assert found["label"] == expected["label"]
    assert found["score"] == pytest.approx(expected["score"], abs=1e-4)


@pytest.mark.parametrize("precision", get_args(Precision))
def test_same_bytes_each_time(precision: Precision, tmp_path: Path, tiny_model: Callable[..., Path]) -> None:
    model = model_of(tiny_model("sequence-classification"))
    files = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        runnable(model, tmp_path / name, precision)
        files.append((tmp_path / name / "model.onnx").read_bytes())
    assert files[0] == files[1]
    assert str(tmp_path).encode() not in files[0]


def test_excluded_nodes_stay_in_float(tmp_path: Path, tiny_model: Callable[..., Path]) -> None:
    import onnx

    convert(model_of(tiny_model("sequence-classification")), example_inputs(), tmp_path / "plain.onnx")

    def quantized(precision: Precision, exclude: list[str]) -> int:
        quantize(tmp_path / "plain.onnx", tmp_path / GRAPH, precision, calibration(), exclude)
        nodes = onnx.load(tmp_path / GRAPH).graph.node
        return sum(node.op_type in ("QuantizeLinear", "MatMulInteger") for node in nodes)

    assert 0 < quantized("int8", [r"layer\.0/"]) < quantized("int8", [])
    assert 0 < quantized("int8_dynamic", [r"layer\.0/"]) < quantized("int8_dynamic", [])


def test_faults_are_one_line(tmp_path: Path, tiny_model: Callable[..., Path]) -> None:
    plain = tmp_path / "plain.onnx"
    model = model_of(tiny_model("sequence-classification"))
    convert(model, example_inputs(), plain)
    with pytest.raises(RecipeError, match=r"^precision: int8 needs calibration texts; write data\.calibration=FILE$"):
        quantize(plain, tmp_path / GRAPH, "int8")
    with pytest.raises(RecipeError, match=r"^exclude: 'nothing' matches no node of the graph; write part of a module"):
        quantize(plain, tmp_path / GRAPH, "int8", calibration(), ["nothing"])
    plain.write_bytes(b"no graph")
    with pytest.raises(ArtifactError, match=r"^.*plain\.onnx: not a graph that onnxruntime reads: [^\n]+$"):
        OnnxRunnable(plain, model.config, threads=1)

    class Fails(torch.nn.Module):
        outputs = ("logits",)

        def forward(self, **_: torch.Tensor) -> torch.Tensor:
            raise ValueError("of\nmany lines")

    with pytest.raises(ArtifactError, match=r"^onnx: cannot convert Fails: of; write recipe=compact$"):
        convert(Fails(), example_inputs(), plain)
