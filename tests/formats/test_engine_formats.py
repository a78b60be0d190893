"""Formats that an engine runs: the same answers at any shape, codes as they are, and what they refuse."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch
from safetensors.torch import load_file, save_file

import optimizer
from optimizer.errors import ArtifactError, EvaluationError, OptimizerError, RecipeError
from optimizer.manifest import describe_files, read_manifest, write_manifest
from optimizer.model.task import Task
from optimizer.unpack import unpack
from optimizer.verify import faults
from tests.conftest import WORDS

pytest.importorskip("openvino")
pytest.importorskip("nncf")
pytest.importorskip("onnxruntime")

FORMATS = ("openvino", "onnx", "packed_openvino")
TASKS: tuple[Task, ...] = ("sequence-classification", "token-classification", "question-answering", "encoder")
SIZES = ((1, 3), (3, 17), (5, 32))


@pytest.fixture(scope="module")
def texts(sentences: Callable[[int], Path]) -> Path:
    return sentences(120)


@pytest.fixture(scope="module")
def run(
    tiny_model: Callable[..., Path], texts: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[pandas.Series, Path]]:
    """`run(task, format, precision, **recipe)`: the row of a run, and its artifact."""

    def run(task: Task, format: str, precision: str, **changes: Any) -> tuple[pandas.Series, Path]:
        out = changes.pop("out", None) or tmp_path_factory.mktemp("out")
        recipe = {
            "model": {"path": str(tiny_model(task))},
            "data": {"path": str(texts)},
            "format": format,
            "engine": {"precision": precision},
            "evaluation": {"repetitions": 0},
            "threads": 1,
        }
        row = optimizer.run(recipe | changes, out=out).iloc[0]
        assert row["status"] == "ok", row["error"]
        return row, out / row["artifact"]

    return run


def inputs(rows: int, length: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(rows)
    mask = (torch.arange(length) < torch.randint(2, length + 1, (rows, 1), generator=draw)).long()
    ids = torch.randint(5, 25, (rows, length), generator=draw) * mask
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}


@torch.no_grad()
def answers(model: Any, given: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    found = model(**given)
    said = given["attention_mask"].bool()
    return [value[said] if value.shape[:2] == said.shape else value for value in found.values()]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("format", ["openvino", "onnx"])
def test_a_graph_answers_as_the_model_at_any_shape(
    run: Callable[..., Any], tiny_model: Callable[..., Path], task: Task, format: str
) -> None:
    row, artifact = run(task, format, "float32")
    assert row["cosine_similarity"] == pytest.approx(1) if task == "encoder" else row["agreement"] == 1
    original, ours = optimizer.load(tiny_model(task)), optimizer.load(artifact)
    for rows, length in SIZES:
        given = inputs(rows, length)
        for theirs, found in zip(answers(original, given), answers(ours, given), strict=True):
            assert (theirs - found).abs().max() < 1e-4 * theirs.abs().max()


def test_a_packed_graph_answers_as_the_graph_in_fewer_bytes(run: Callable[..., Any], tmp_path: Path) -> None:
    stages = {"quantize": {"step": 0.5}}
    plain, artifact = run("sequence-classification", "openvino", "int8", stages=stages)
    packed, small = run("sequence-classification", "packed_openvino", "int8", stages=stages)
    assert packed["artifact_bytes"] < 0.7 * plain["artifact_bytes"]
    assert packed["agreement"] == plain["agreement"]
    given = inputs(3, 17)
    (expected,) = answers(optimizer.load(artifact), given)
    assert torch.equal(answers(optimizer.load(small), given)[0], expected)
    unpack(small, tmp_path / "unpacked")
    assert read_manifest(tmp_path / "unpacked").format == "openvino"
    for name in ("openvino_model.xml", "openvino_model.bin"):
        assert (tmp_path / "unpacked" / name).read_bytes() == (artifact / name).read_bytes()


def test_a_row_says_how_its_batch_was_run(run: Callable[..., Any]) -> None:
    timed = {"examples": 0, "repetitions": 1, "batch_size": 2, "length": 8}
    row, artifact = run("sequence-classification", "openvino", "int8", evaluation=timed)
    assert row["latency_ms_p50"] > 0
    assert re.fullmatch(r"1 stream of 1 thread, (dynamic|static 2x8), (f32|bf16|f16)", row["engine_choice"])
    assert json.loads((artifact.parent / "row.json").read_text())["engine_choice"] == row["engine_choice"]
    row, _ = run("sequence-classification", "onnx", "int8", evaluation=timed)
    assert row["latency_ms_p50"] > 0
    assert pandas.isna(row["engine_choice"])


def test_codes_of_a_stage_are_the_graphs_own_weights(run: Callable[..., Any]) -> None:
    _, artifact = run("sequence-classification", "openvino", "int8_weights", stages={"quantize": {"bits": 8}})
    log = (artifact.parent / "run.log").read_text()
    found = [line for line in log.splitlines() if "matrices of codes are the graph's int8 weights" in line]
    assert found, log
    count, _, total = found[0].partition(" INFO ")[2].partition(" of ")
    assert 0 < int(count) <= int(total.split()[0])


def without_neurons_and_heads(directory: Path) -> Path:
    """The tiny model of a directory with half of each layer's neurons and heads removed by zeros, in place."""
    weights = load_file(directory / "model.safetensors")
    for name, weight in weights.items():
        if name.endswith("output.dense.weight"):
            weight[:, weight.shape[1] // 2 :] = 0
    save_file(weights, directory / "model.safetensors", {"format": "pt"})
    return directory


@pytest.mark.parametrize("stage", [{"bits": 8}, {"step": 0.5}])
@pytest.mark.parametrize("precision", ["int8_weights", "int8"])
def test_what_nothing_reads_is_not_in_the_file(
    run: Callable[..., Any], tiny_model: Callable[..., Path], tmp_path: Path, precision: str, stage: dict[str, Any]
) -> None:
    size = {"hidden_size": 64, "intermediate_size": 256}  # so that matrices have payloads of their own
    whole = tiny_model("sequence-classification", tmp_path / "whole", **size)
    zeros = without_neurons_and_heads(tiny_model("sequence-classification", tmp_path / "zeros", **size))

    def of(model: Path, **engine: Any) -> tuple[pandas.Series, str, Path]:
        changes = {"model": {"path": str(model)}, "engine": {"precision": precision} | engine}
        row, artifact = run(
            "sequence-classification", "packed_openvino", precision, stages={"quantize": stage}, **changes
        )
        return row, (artifact.parent / "run.log").read_text(), artifact

    (before, log, _), (after, narrow_log, artifact) = of(whole), of(zeros)
    assert "that nothing reads" not in log
    assert "256 of 512 neurons and 2 of 4 heads that nothing reads are left out" in narrow_log
    used = re.compile(r"(\d+ of \d+) matrices of codes are the graph's int8 weights")
    assert used.findall(log) == used.findall(narrow_log) != []
    unreduced, _, full = of(zeros, reduce=False)
    assert after["artifact_bytes"] < 0.75 * before["artifact_bytes"]
    assert after["artifact_bytes"] < 0.8 * unreduced["artifact_bytes"]
    if precision == "int8_weights":  # whose codes are the weights as they are
        (count, total) = used.findall(narrow_log)[0].split(" of ")
        assert count == total
        narrow, wide = (
            answers(optimizer.load(one, inference_precision="f32"), inputs(3, 17))[0] for one in (artifact, full)
        )
        assert (narrow - wide).abs().max() < 1e-4 * wide.abs().max()


@pytest.mark.parametrize("format", ["openvino", "onnx"])
def test_int8_is_calibrated_on_texts_that_are_not_measured(run: Callable[..., Any], texts: Path, format: str) -> None:
    row, artifact = run("sequence-classification", format, "int8")
    everything = len(texts.read_text().splitlines())
    record = read_manifest(artifact).calibration
    assert record is not None
    assert record["examples"] + row["examples"] == everything
    assert record["examples"] == everything // 5 == row["calibration_examples"]
    assert (record["texts"], record["processor"]) == (row["calibration_fingerprint"], row["processor"])
    assert row["agreement"] > 0.8


def test_only_what_rounds_by_the_batchs_own_range_depends_on_neighbours(run: Callable[..., Any]) -> None:
    dynamic, _ = run("sequence-classification", "onnx", "int8_dynamic")
    assert dynamic["batch_invariance"] > 1e-3
    for format in ("openvino", "onnx"):
        static, _ = run("sequence-classification", format, "int8")
        assert static["batch_invariance"] < 1e-4


def test_given_calibration_texts_leave_all_others_to_be_measured(
    run: Callable[..., Any], texts: Path, tmp_path: Path
) -> None:
    file = tmp_path / "others.jsonl"
    file.write_text(
        "".join(json.dumps({"text": f"the {word} {other}"}) + "\n" for word in WORDS for other in WORDS[:5])
    )
    data = {"path": str(texts), "calibration": str(file)}
    row, artifact = run("sequence-classification", "openvino", "int8", data=data)
    assert row["examples"] == len(texts.read_text().splitlines())
    record = read_manifest(artifact).calibration
    assert record is not None
    assert record["examples"] == 100
    other, _ = run("sequence-classification", "openvino", "int8")
    assert other["run_id"] != row["run_id"]


def test_an_artifact_is_used_again_only_with_the_same_calibration(
    run: Callable[..., Any], texts: Path, tmp_path: Path
) -> None:
    first, _ = run("sequence-classification", "openvino", "int8", out=tmp_path)
    again, artifact = run(
        "sequence-classification", "openvino", "int8", out=tmp_path, evaluation={"repetitions": 0, "batch_size": 4}
    )
    assert again["run_id"] != first["run_id"]
    assert f"the artifact is that of {first['run_id']}" in (artifact.parent / "run.log").read_text()
    data = {"path": str(texts), "limit": 100}
    _, artifact = run("sequence-classification", "openvino", "int8", out=tmp_path, data=data)
    assert "the artifact is that of" not in (artifact.parent / "run.log").read_text()


def test_the_same_recipe_gives_the_same_bytes(run: Callable[..., Any]) -> None:
    manifests = [read_manifest(run("sequence-classification", "packed_openvino", "int8")[1]) for _ in range(2)]
    assert manifests[0] == manifests[1]


def test_the_arithmetic_beside_int8_is_the_recipes(run: Callable[..., Any]) -> None:
    """Whoever loads the artifact need not know."""
    given = inputs(3, 17)
    engine = {"precision": "int8", "compute": "bfloat16"}
    whole_engine = engine | {"compute": "float32"}
    artifacts = [run("sequence-classification", "openvino", "int8", engine=one)[1] for one in (whole_engine, engine)]
    whole, half = (answers(optimizer.load(artifact), given)[0] for artifact in artifacts)
    assert not torch.equal(whole, half)
    asked = answers(optimizer.load(artifacts[0], inference_precision="bf16"), given)[0]
    assert torch.equal(asked, half)


def test_small_files_of_the_original_come_along(run: Callable[..., Any], tiny_model: Callable[..., Path]) -> None:
    _, artifact = run("sequence-classification", "openvino", "float32")
    names = {path.name for path in artifact.iterdir()}
    assert {"openvino_model.xml", "openvino_model.bin", "config.json", "tokenizer.json", "recipe.yaml"} <= names
    assert "model.safetensors" not in names


def test_a_pipeline_takes_the_graph_for_the_model(run: Callable[..., Any], tiny_model: Callable[..., Path]) -> None:
    from transformers import AutoTokenizer, pipeline

    _, artifact = run("sequence-classification", "openvino", "float32")
    tokenizer = AutoTokenizer.from_pretrained(artifact)
    ours = pipeline("text-classification", model=optimizer.load(artifact), tokenizer=tokenizer)
    theirs = pipeline(
        "text-classification", model=optimizer.load(tiny_model("sequence-classification")), tokenizer=tokenizer
    )
    lines = ["the cat sees the dog", "a bird"]
    assert [one["label"] for one in ours(lines)] == [one["label"] for one in theirs(lines)]


# refusals


def refusal(call: Callable[[], object], kind: type[OptimizerError]) -> str:
    with pytest.raises(kind) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("task", ["causal-lm", "seq2seq-lm", "image-classification"])
def test_what_generates_or_sees_is_refused_before_anything_is_written(
    tiny_model: Callable[..., Path], tmp_path: Path, format: str, task: Task
) -> None:
    recipe = {"model": {"path": str(tiny_model(task))}, "format": format, "engine": {"precision": "float32"}}
    line = refusal(lambda: optimizer.run(recipe, out=tmp_path / "out"), OptimizerError)
    assert line == (
        f"format: {format} runs encoders (sequence-classification, token-classification, question-answering, encoder), "
        f"not {task}; write recipe=compact"
    )


@pytest.mark.parametrize("format", FORMATS)
def test_wrong_settings_of_an_engine(tmp_path: Path, format: str) -> None:
    def of(**changes: Any) -> str:
        return refusal(lambda: optimizer.run({"format": format} | changes, out=tmp_path), RecipeError)

    assert "engine: unknown key 'precison'; did you mean 'engine.precision'?" in of(engine={"precison": "int8"})
    assert of(engine={"precision": "int9"}).startswith("engine.precision: 'int9': ")
    assert of(also_pt=True) == f"also_pt: the format {format} holds no weights by their names; remove it"
    assert not list(tmp_path.iterdir())


def test_operations_to_exclude_must_be_there(tiny_model: Callable[..., Path], texts: Path, tmp_path: Path) -> None:
    recipe = {
        "model": {"path": str(tiny_model("sequence-classification"))},
        "data": {"path": str(texts)},
        "format": "openvino",
        "engine": {"precision": "int8", "exclude": ["no_such_layer"]},
        "evaluation": {"examples": 0, "repetitions": 0},
    }
    row = optimizer.run(recipe, out=tmp_path).iloc[0]
    assert row["status"] == "failed"
    assert "exclude: 'no_such_layer' matches no operation of the graph" in row["error"]
    assert not (tmp_path / "runs" / row["run_id"] / "artifact").exists()


def test_too_few_texts_to_spare_any(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "few.txt").write_text("the cat\na dog\n")
    model = {"path": str(tiny_model("sequence-classification"))}
    recipe = {"model": model, "data": {"path": str(tmp_path / "few.txt")}, "format": "openvino"}
    line = refusal(lambda: optimizer.run(recipe, out=tmp_path / "out"), OptimizerError)
    assert line.startswith("data.calibration: few.txt has too few texts")


def test_another_device_is_refused(run: Callable[..., Any]) -> None:
    _, artifact = run("sequence-classification", "openvino", "float32")
    line = refusal(lambda: optimizer.load(artifact, device="cuda"), EvaluationError)
    assert line == "device: openvino runs on the CPU, not on cuda; write device=cpu"


@pytest.mark.parametrize("format", FORMATS)
def test_a_damaged_graph_is_one_line(run: Callable[..., Any], tmp_path: Path, format: str) -> None:
    """Under a manifest that was made to agree."""
    _, artifact = run("sequence-classification", format, "float32")
    (graph,) = (
        artifact / name
        for name in ("openvino_model.xml", "model.onnx", "openvino_model.packed")
        if (artifact / name).exists()
    )
    whole = graph.read_bytes()
    graph.write_bytes(whole[: len(whole) // 2])
    write_manifest(artifact, replace(read_manifest(artifact), files=describe_files(artifact)))
    line = refusal(lambda: optimizer.load(artifact), ArtifactError)
    assert str(graph) in line
    assert "manifest" not in line


@pytest.mark.parametrize("format", FORMATS)
def test_a_byte_of_any_of_its_files_is_told(run: Callable[..., Any], format: str) -> None:
    _, artifact = run("sequence-classification", format, "float32")
    assert faults(artifact, deep=True) == []
    files = read_manifest(artifact).files
    assert {"config.json", "recipe.yaml"} < set(files)
    for name in files:
        whole = (artifact / name).read_bytes()
        (artifact / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        line = f"{artifact / name}: is not what the manifest says; make the artifact again"
        assert refusal(lambda: optimizer.load(artifact), ArtifactError) == line
        assert line in faults(artifact)
        (artifact / name).write_bytes(whole)
    optimizer.load(artifact)
