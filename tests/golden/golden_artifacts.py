"""Artifacts of each format version, committed with the logits that they gave: they must load for ever."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import golden_models
import torch

FOLDER = Path(__file__).with_name("artifacts")
NAMES = ("fp16_dense", "compact_packed", "int8_dense", "balanced_packed", "nf4_dense", "nf4_packed")
INPUT_IDS = [[2, 4, 6, 3, 8, 5, 1, 23], [7, 9, 12, 21, 20, 0, 0, 0]]


def logits(model: Any) -> torch.Tensor:
    """What a loaded artifact answers, without what pads the second text."""
    inputs = torch.tensor(INPUT_IDS)
    with torch.no_grad():
        answer: torch.Tensor = model(input_ids=inputs, attention_mask=(inputs != 0).long()).logits
    return answer.float()


def answers() -> dict[Path, torch.Tensor]:
    """The committed artifacts of every format version, with the logits that they gave when they were made."""
    return {
        path.with_name(name): torch.tensor(answer)
        for path in sorted(FOLDER.glob("*/logits.json"))
        for name, answer in json.loads(path.read_text()).items()
    }


def make() -> Path:
    """Make the artifacts of today's format version, in place of those there."""
    import optimizer

    with tempfile.TemporaryDirectory() as scratch:
        original = golden_models.save(golden_models.smallest(), Path(scratch) / "smallest")
        for needless in original.glob("tokenizer*"):
            needless.unlink()
        made = {name: _make(name, original) for name in NAMES}
        (version,) = {
            json.loads((artifact / "manifest.json").read_text())["format_version"] for artifact in made.values()
        }
        place = FOLDER / f"format_{version}"
        shutil.rmtree(place, ignore_errors=True)
        for name, artifact in made.items():
            shutil.copytree(artifact, place / name, ignore=shutil.ignore_patterns("README.md"))
    found = {name: logits(optimizer.load(place / name)).tolist() for name in NAMES}
    (place / "logits.json").write_text(json.dumps(found, indent=1) + "\n")
    return place


def _make(name: str, original: Path) -> Path:
    import optimizer

    recipe, output_format = name.rsplit("_", 1)
    settings = [f"recipe={recipe}", f"format={output_format}", f"model.path={original}", "evaluation=none"]
    out = original.with_name("out")
    (row,) = optimizer.run(optimizer.compose(*settings), out=out).to_dict("records")
    assert row["status"] == "ok", row["error"]
    return out / str(row["artifact"])
