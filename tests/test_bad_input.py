"""Damaged models, wrong labels, a full disk, no network: what the command line says and leaves."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile
import pytest
from command_line import one_line, rows

from optimizer.stages import STAGES

Command = Callable[..., tuple[int, str, str]]
Model = Callable[..., Path]
ROOT = Path(__file__).parent.parent
RECIPES = sorted(path.stem for path in (ROOT / "conf" / "recipe").glob("*.yaml"))


def nothing_was_written(out: Path) -> bool:
    return not (out / "results.csv").exists() and not list(out.glob("runs/*"))


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_a_truncated_weight_file_is_named(optimizer: Command, tiny_model: Model, tmp_path: Path, kept: int) -> None:
    weights = tiny_model("sequence-classification", tmp_path / "model") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    code, out, err = optimizer("recipe=fp16", "model.path=./model", "evaluation=none")
    assert (code, out) == (2, "")
    assert one_line(err).startswith(f"optimizer: {weights}: cannot be read")
    assert nothing_was_written(tmp_path / "outputs")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            [{"text": "the cat", "label": "LABEL_0"}, {"text": "a dog", "label": "cat"}],
            "texts.jsonl: the model does not know 'cat'; it knows 'LABEL_0', 'LABEL_1', 'LABEL_2'",
        ),
        ([{"text": "the cat", "label": 3}], "texts.jsonl: the model does not know '3'"),
        ([{"text": "the cat", "label": 0}, {"text": "a dog"}], "texts.jsonl:2: has no 'label'"),
        ([{"message": "the cat"}], "texts.jsonl:1: has no column 'text' (columns: message); write data.text=COLUMN"),
        ([], "texts.jsonl: holds no texts"),
    ],
)
def test_texts_that_do_not_fit_the_model_are_one_line(
    optimizer: Command, tiny_model: Model, tmp_path: Path, lines: list[dict[str, Any]], said: str
) -> None:
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    model = tiny_model("sequence-classification")
    code, out, err = optimizer("recipe=fp16", f"model.path={model}", "data.path=texts.jsonl")
    assert (code, out) == (2, "")
    assert said in one_line(err)
    assert nothing_was_written(tmp_path / "outputs")


def test_a_full_disk_is_a_failed_row_and_leaves_no_artifact(
    optimizer: Command, tiny_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(STAGES, "full", hostile.Full)
    model = f"model.path={tiny_model('sequence-classification')}"
    command = ("recipe=fp16", model, "evaluation=none", f"+stages.full.go={tmp_path}/go")
    code, out, err = optimizer(*command)
    assert code == 1
    started, failed = err.splitlines()
    assert failed.startswith(f"{started.partition(':')[0]}: failed: {tmp_path}/outputs/runs/")
    assert failed.endswith("artifact: cannot be written (File too large)")
    assert "failed" in out
    (row,) = rows(tmp_path / "outputs")
    assert row["status"] == "failed"
    assert "File too large" in row["error"]
    assert row["artifact"] == row["artifact_bytes"] == ""
    run = tmp_path / "outputs" / "runs" / row["run_id"]
    assert {path.name for path in run.iterdir()} == {"row.json", "recipe.yaml", "run.log", ".lock"}
    (tmp_path / "go").touch()
    assert optimizer(*command)[0] == 0
    (again,) = rows(tmp_path / "outputs")
    assert (again["run_id"], again["status"]) == (row["run_id"], "ok")


def test_a_sweep_over_all_recipes(optimizer: Command, tiny_model: Model, tmp_path: Path) -> None:
    fixed = (
        f"model.path={tiny_model('sequence-classification')}",
        "data.path=builtin",
        "evaluation=none",
        "gates=null",
    )
    others = (
        "best",
        "fastest",
        "smallest",
        "smallest_steps",
        "int8_onnx",
        "int8_openvino",
        "narrow_int8",
    )  # searches, and graphs, which take long
    code, out, err = optimizer("-m", f"recipe=glob(*,exclude=[{','.join(others)}])", *fixed)
    assert code == 0, err
    found = {row["recipe"]: row for row in rows(tmp_path / "outputs")}
    assert sorted([*found, *others]) == RECIPES
    assert {row["status"] for row in found.values()} == {"ok"}
    assert all(row["run_id"] in out for row in found.values())


def test_a_hub_model_without_network_is_one_line(
    optimizer: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What HF_HUB_OFFLINE=1 and HF_HOME set when huggingface_hub is imported.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    code, out, err = optimizer("recipe=fp16", "model=hub", "model.path=somebody/something")
    assert (code, out) == (2, "")
    assert "model.path: 'somebody/something' is no directory" in one_line(err)
    assert "HF_HUB_OFFLINE forbids to ask the hub; unset it, or write a directory" in err
    assert nothing_was_written(tmp_path / "outputs")
