"""OpenVINO's graphs answer as torch does, at batch sizes and lengths that they were not converted with."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

pytest.importorskip("openvino", reason="needs the extra openvino")
pytest.importorskip("nncf", reason="needs the extra openvino")

from optimizer.engines.openvino import CONSTANTS, GRAPH, Precision, convert, quantize, save
from optimizer.engines.openvino_runnable import OpenVINORunnable, read
from optimizer.errors import ArtifactError, RecipeError
from optimizer.model.task import Task
from tests.engines.models import assert_answers_alike, calibration, example_inputs, inputs, model_of

ENCODERS: list[Task] = [
    "sequence-classification", "token-classification", "question-answering", "masked-lm", "encoder",
]  # fmt: skip


def runnable(model: Any, precision: Precision = "float32", **options: Any) -> OpenVINORunnable:
    """The model as it runs in this precision."""
    graph = quantize(convert(model, example_inputs()), precision, calibration())
    return OpenVINORunnable(graph, model.config, threads=1, **options)


@pytest.mark.parametrize("task", ENCODERS)
@pytest.mark.usefixtures("small_batches_are_shared")
def test_answers_as_torch_does(task: Task, tiny_model: Callable[..., Path]) -> None:
    model = model_of(tiny_model(task))
    graph = convert(model, example_inputs())
    for streams in (1, 3):
        engine = OpenVINORunnable(graph, model.config, threads=1, streams=streams)
        assert_answers_alike(engine, model)


@pytest.mark.parametrize("precision", [one for one in get_args(Precision) if one != "float32"])
def test_precisions_come_close(precision: Precision, tmp_path: Path, tiny_model: Callable[..., Path]) -> None:
    # Small weights, as trained models have: beside wide random ones every rounding shows.
    model = model_of(tiny_model("sequence-classification", tmp_path, initializer_range=0.1))
    engine = runnable(model, precision)
    given = inputs([12, 4, 7, 9, 9, 3])
    with torch.no_grad():
        expected = model(**given).logits
    apart = (engine(**given).logits - expected).abs().mean() / expected.std()
    assert 0 < apart < {"bfloat16": 0.02, "int8": 0.25, "int8_weights": 0.05, "int4_weights": 0.4}[precision]


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_answer_depends_on_its_own_text_alone(precision: Precision, tiny_model: Callable[..., Path]) -> None:
    model = model_of(tiny_model("sequence-classification"))
    engine = runnable(model, precision)
    batch = inputs([9, 4, 7, 2], length=12)
    together = engine(**batch).logits
    for row, length in enumerate([9, 4, 7, 2]):
        padded = {name: value[row : row + 1] for name, value in batch.items()}
        alone = {name: value[:, :length] for name, value in padded.items()}
        for one in (padded, alone):
            torch.testing.assert_close(engine(**one).logits[0], together[row], atol=1e-5, rtol=1e-5)


def test_what_is_missing_or_not_taken(tiny_model: Callable[..., Path]) -> None:
    model = model_of(tiny_model("sequence-classification"))
    engine = runnable(model)
    ids = inputs([6, 6])["input_ids"]
    with torch.no_grad():
        expected = model(input_ids=ids).logits
    answer = engine(input_ids=ids, position_ids=None, labels=torch.zeros(2), return_dict=True)
    torch.testing.assert_close(answer.logits, expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(TypeError, match=r"^input_ids: is missing; this model takes input_ids, attention_mask, token"):
        engine(attention_mask=torch.ones_like(ids))


@pytest.mark.usefixtures("small_batches_are_shared")
@pytest.mark.parametrize("streams", [1, 2])
def test_padding_of_a_span_is_never_chosen(streams: int, tiny_model: Callable[..., Path]) -> None:
    engine = runnable(model_of(tiny_model("question-answering")), streams=streams)
    given = inputs([9, 4], length=12)
    answer = engine(**given)
    for name in ("start_logits", "end_logits"):
        assert answer[name].shape == (2, 12)
        assert bool((answer[name].argmax(-1) < torch.tensor([9, 4]))[1])


@pytest.mark.parametrize("task", ["text-classification", "token-classification", "feature-extraction", "fill-mask"])
def test_in_a_pipeline(task: str, tiny_model: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    from transformers import AutoTokenizer, pipeline

    kinds: dict[str, Task] = {
        "text-classification": "sequence-classification",
        "token-classification": "token-classification",
        "feature-extraction": "encoder",
        "fill-mask": "masked-lm",
    }
    directory = tiny_model(kinds[task])
    model, tokenizer = model_of(directory), AutoTokenizer.from_pretrained(directory)
    text = "the cat sees a [MASK]" if task == "fill-mask" else "the big cat sees a dog"
    make: Any = pipeline
    expected = make(task, model=model, tokenizer=tokenizer, device="cpu")(text)
    caplog.clear()
    found = make(task, model=runnable(model), tokenizer=tokenizer)(text)
    assert "not supported" not in caplog.text
    if task == "feature-extraction":
        torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), atol=1e-4, rtol=1e-4)
        return
    for one, other in zip(found, expected, strict=True):
        assert one.pop("score") == pytest.approx(other.pop("score"), abs=1e-4)
        assert one == other


def test_files_are_those_that_others_look_for_and_the_same_each_time(
    tmp_path: Path, tiny_model: Callable[..., Path]
) -> None:
    model = model_of(tiny_model("sequence-classification"))
    files = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        save(quantize(convert(model, example_inputs()), "int8", calibration()), tmp_path / name)
        files.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})

    assert set(files[0]) == {"openvino_model.xml", "openvino_model.bin"}
    assert files[0] == files[1]
    assert str(tmp_path).encode() not in files[0][GRAPH]
    given = inputs([4, 8])
    answers = [OpenVINORunnable(read(tmp_path / name), model.config, 1)(**given).logits for name in ("one", "two")]
    assert torch.equal(*answers)


def test_cache_is_where_it_is_told(tmp_path: Path, tiny_model: Callable[..., Path]) -> None:
    model = model_of(tiny_model("sequence-classification"))
    for _ in range(2):
        runnable(model, cache_dir=tmp_path)(**inputs([4]))
        assert len(list(tmp_path.glob("*.blob"))) == 1


def test_excluded_operations_stay_in_float(tiny_model: Callable[..., Path]) -> None:
    model = model_of(tiny_model("sequence-classification"))

    def quantized(exclude: list[str]) -> int:
        graph = quantize(convert(model, example_inputs()), "int8", calibration(), exclude)
        return sum(node.get_type_name() == "FakeQuantize" for node in graph.get_ops())

    assert 0 < quantized([r"layer\.0\."]) < quantized([])


def test_faults_are_one_line(tmp_path: Path, tiny_model: Callable[..., Path]) -> None:
    model = model_of(tiny_model("sequence-classification"))
    with pytest.raises(RecipeError, match=r"^precision: int8 needs calibration texts; write data\.calibration=FILE$"):
        quantize(convert(model, example_inputs()), "int8")
    with pytest.raises(RecipeError, match=r"^exclude: 'nothing' matches no operation of the graph; write part"):
        quantize(convert(model, example_inputs()), "int8", calibration(), ["nothing"])
    with pytest.raises(ArtifactError, match=r"^.*openvino_model.xml: not a graph that openvino reads: [^\n]+$"):
        read(tmp_path)
    save(convert(model, example_inputs()), tmp_path)
    (tmp_path / CONSTANTS).write_bytes(b"short")
    with pytest.raises(ArtifactError, match=r"^.*openvino_model.xml: not a graph that openvino reads: [^\n]+$"):
        read(tmp_path)

    class Fails(torch.nn.Module):
        outputs = ("logits",)

        def forward(self, **_: torch.Tensor) -> torch.Tensor:
            raise ValueError("of\nmany lines")

    log = logging.getLogger()
    before = log.level, list(log.filters), list(log.handlers)
    with pytest.raises(ArtifactError, match=r"^openvino: cannot convert Fails: [^\n]+; write recipe=compact$"):
        convert(Fails(), example_inputs())
    assert (log.level, log.filters, log.handlers) == before, "the converter's own, left behind"


def test_sends_nothing_and_leaves_nothing_at_home(tmp_path: Path) -> None:
    program = "from optimizer.engines.packages import nncf, openvino; openvino(); nncf(); import logging, sys; " + (
        "assert not [name for name in sys.modules if name.startswith('openvino_telemetry')]; "
        "assert logging.getLoggerClass() is logging.Logger"
    )
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "nncf" not in done.stdout.lower()
    assert list(tmp_path.glob("intel*")) == []


def test_ctrl_c_is_heard_after_graphs_have_come_and_gone(tmp_path: Path, tiny_model: Callable[..., Path]) -> None:
    model = model_of(tiny_model("sequence-classification"))
    save(quantize(convert(model, example_inputs()), "int8", calibration()), tmp_path)
    program = f"""
import gc, pathlib, signal, torch
from optimizer.engines.openvino_runnable import OpenVINORunnable, read

graphs = [OpenVINORunnable(read(pathlib.Path({str(tmp_path)!r})), object(), threads=2) for _ in range(3)]
for graph in graphs:
    graph(input_ids=torch.full((2, 8), 5))
while graphs:
    del graphs[0], graph
    graph = None
    gc.collect()
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("heard")
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["heard"]), done.stderr
