"""Artifacts in the hands of the real optimum-intel, optimum-onnx and sentence-transformers.

They need older versions of transformers than the project does, and not the same: each has an environment of its own.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, BertTokenizer

import optimizer
from optimizer.model.task import Task

pytest.importorskip("openvino")
pytest.importorskip("nncf")
pytest.importorskip("onnxruntime")

pytestmark = pytest.mark.slow

PEERS = {
    "openvino": ["optimum-intel==2.2.0", "transformers==5.5.4", "sentence-transformers==6.2.0"],
    "onnx": ["optimum-onnx==0.1.0", "transformers==4.57.6", "sentence-transformers==5.7.0"],
}
SAME_AS_HERE = {"openvino": ["torch", "openvino"], "onnx": ["torch", "onnxruntime"]}
HEADS: dict[Task, str] = {
    "sequence-classification": "SequenceClassification",
    "token-classification": "TokenClassification",
    "question-answering": "QuestionAnswering",
    "encoder": "FeatureExtraction",
}
KNOWN = ("cat", "dog", "bird", "fish", "sees", "likes", "finds", "runs")
TEXTS = [["the cat sees the dog", "a bird"], ["a fish", "now the big red dog runs here"], ["green", "unseen words"]]

# Runs where nothing of ours is: the arrays of each answer, and of what was asked, go into a file.
ASK = """
import json, sys
sys.modules["openvino_telemetry"] = None  # openvino has a substitute that sends nothing
import numpy
from transformers import AutoTokenizer

kind, directories, heads, pairs, out = sys.argv[1], *map(json.loads, sys.argv[2:5]), sys.argv[5]
if kind == "openvino":
    import optimum.intel as optimum
else:
    import optimum.onnxruntime as optimum
prefix = {"openvino": "OVModelFor", "onnx": "ORTModelFor"}[kind]
for task, directory in directories.items():
    model = getattr(optimum, prefix + heads[task]).from_pretrained(directory)
    asked = AutoTokenizer.from_pretrained(directory)(*zip(*pairs), padding=True, return_tensors="pt")
    said = {name: value.numpy() for name, value in (*asked.items(), *model(**asked).items())}
    numpy.savez(f"{out}/{task}.npz", **said)

from sentence_transformers import SentenceTransformer

model = SentenceTransformer(directories["encoder"], backend=kind)
numpy.save(f"{out}/embeddings.npy", model.encode([" ".join(pair) for pair in pairs]))
"""


def environment(place: Path) -> dict[str, str]:
    """Variables under which an environment's Python finds nothing outside it, and asks no network for models."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return kept | {"PYTHONNOUSERSITE": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(place / "huggingface")}


def installed(place: Path, format: str) -> Path:
    """The Python of a new environment in `place` that holds the peers; skips, with the reason, where there is none."""
    python = place / "bin" / "python"
    pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    same = [f"{name}=={version(name).partition('+')[0]}" for name in SAME_AS_HERE[format]]
    for command in (
        [sys.executable, "-m", "venv", str(place)],
        [*pip, "install", "--retries=1", "--no-compile", *same, *PEERS[format]],
        # optimum-intel asks for it, texts do not; one that was built for another build of torch breaks transformers.
        [*pip, "uninstall", "--yes", "torchvision"],
    ):
        done = subprocess.run(command, env=environment(place), capture_output=True, text=True, check=False)
        if done.returncode:
            lines = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
            pytest.skip(f"no environment for {PEERS[format][0]}: {lines[-1]}")
    return python


@pytest.fixture(scope="module", params=["openvino", "onnx"])
def format(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def peer(format: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The Python of the format's peers; their gigabyte and a half is gone afterwards."""
    place = tmp_path_factory.mktemp("peer")
    try:
        yield installed(place, format)
    finally:
        shutil.rmtree(place)


@pytest.fixture(scope="module")
def artifacts(
    format: str, tiny_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[Task, Path]:
    """One of each task in 8 bits, that of the encoder made from what sentence-transformers saves."""
    folder = tmp_path_factory.mktemp("artifacts")
    texts = folder / "texts.txt"
    texts.write_text("".join(f"the {one} {other}\n" for one in KNOWN for other in KNOWN))
    found: dict[Task, Path] = {}
    for task in HEADS:
        original = tiny_model(task, folder / task)
        # A tokenizer without a class of its own is saved by transformers 5 under a name that 4 does not know.
        vocabulary = AutoTokenizer.from_pretrained(original).get_vocab()
        BertTokenizer(vocab=vocabulary, model_max_length=32).save_pretrained(original)
        if task == "encoder":
            add_sentence_transformer(original)
        recipe = {
            "model": {"path": str(original)},
            "data": {"path": str(texts)},
            "format": format,
            "evaluation": {"examples": 0, "repetitions": 0},
            "threads": 1,
        }
        row = optimizer.run(recipe, out=folder / "out").iloc[0]
        assert row["status"] == "ok", row["error"]
        found[task] = folder / "out" / row["artifact"]
    return found


def add_sentence_transformer(directory: Path) -> None:
    """The files that sentence-transformers keeps beside a model whose tokens' mean, normalized, is the embedding."""
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    listed = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(modules)
    ]
    (directory / "modules.json").write_text(json.dumps(listed))
    (directory / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 32, "do_lower_case": False}))
    (directory / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
    (directory / "1_Pooling" / "config.json").write_text(json.dumps(pooling))


@pytest.fixture(scope="module")
def said(format: str, peer: Path, artifacts: dict[Task, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what the peers said to TEXTS."""
    out = tmp_path_factory.mktemp("said")
    places = {task: str(place) for task, place in artifacts.items()}
    given = [format, *map(json.dumps, (places, HEADS, TEXTS)), str(out)]
    before = {place: sorted(place.rglob("*")) for place in artifacts.values()}
    done = subprocess.run(
        [str(peer), "-c", ASK, *given], cwd=out, env=environment(out), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert {place: sorted(place.rglob("*")) for place in before} == before  # nothing was converted anew
    return out


@torch.no_grad()
def ours(directory: Path, *texts: Any) -> list[dict[str, Any]]:
    """What an artifact is asked, and its answer, here."""
    asked = AutoTokenizer.from_pretrained(directory)(*texts, padding=True, return_tensors="pt")
    answer = optimizer.load(directory, threads=1)(**asked)
    return [{name: value.numpy() for name, value in found.items()} for found in (asked, answer)]


@pytest.mark.parametrize("task", HEADS)
def test_optimum_gives_the_same_answers(said: Path, artifacts: dict[Task, Path], task: Task) -> None:
    """Graph and engine are the same: on one processor they were equal; threads may add in another order."""
    theirs = np.load(said / f"{task}.npz")
    asked, answer = ours(artifacts[task], *zip(*TEXTS, strict=True))
    for name, value in asked.items():
        assert np.array_equal(theirs[name], value), name
    heard = asked["attention_mask"].astype(bool)
    compared = [name for name in answer if name in theirs]  # optimum has no pooler_output
    assert compared
    for name in compared:
        one, other = answer[name], theirs[name]
        if one.shape[:2] == heard.shape:
            one, other = one[heard], other[heard]
        assert np.abs(one - other).max() <= 1e-5 * np.abs(one).max(), name


def test_sentence_transformers_gives_the_same_embeddings(said: Path, artifacts: dict[Task, Path]) -> None:
    asked, answer = ours(artifacts["encoder"], [" ".join(pair) for pair in TEXTS])
    mask = asked["attention_mask"][..., None]
    mean = (answer["last_hidden_state"] * mask).sum(1) / mask.sum(1)
    expected = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    theirs = np.load(said / "embeddings.npy")
    assert theirs.shape == (len(TEXTS), 32)
    assert np.abs(theirs - expected).max() <= 1e-5
