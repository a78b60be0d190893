"""What every shipped recipe makes of a tiny model: run ids and sha256, by the public functions alone.

`record` does so in a process whose environment and versions are the same everywhere; run as a script, with the name of
a model, this file is that process.
"""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import golden_models

# Not those that are calibrated, which follow the machine, nor engines, whose settings dense and packed have not.
OTHERS = {"best", "compact_int8", "fastest", "int8_onnx", "int8_openvino", "narrow_int8", "smallest"}
RECIPES = sorted({path.stem for path in (Path(__file__).parents[2] / "conf" / "recipe").glob("*.yaml")} - OTHERS)
FORMATS = ("dense", "packed")
OPTIONS = {"smallest_steps": ["~search"]}  # the recipe itself, without the search for its steps
TEXTS = "the cat sees a dog\na small dog likes the red cat\n"
PYTHON = "3.11.0"
VERSIONS = {
    "bitsandbytes": "0.50.2",
    "numpy": "2.4.6",
    "optimizer": "0.1.0",
    "safetensors": "0.8.0",
    "torch": "2.13.0",
    "transformers": "5.23.0",
}
"""What the program takes for the versions that it runs under, so that run ids do not follow those of the machine."""
ENVIRONMENT = {
    "ATEN_CPU_CAPABILITY": "default",  # sums are not the same with every width of vector
    "OMP_NUM_THREADS": "1",
}
Record = dict[str, dict[str, dict[str, Any]]]
"""By recipe and format: the run's id, and the sha256 of its files or the error that it is refused with."""


def record(model: str) -> Record:
    """What today's code makes of the model of that name."""
    command = [sys.executable, __file__, model]
    done = subprocess.run(command, env=os.environ | ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: Record = json.loads(done.stdout)
    return found


def stored(model: str) -> Path:
    """Where the golden values of a model are."""
    return Path(__file__).with_name(f"{model}.json")


def _main(model: str) -> None:
    _pin_versions()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        directory = golden_models.save(golden_models.GOLDEN[model](), folder / model)
        found = {recipe: {kind: _run(recipe, kind, directory, folder) for kind in FORMATS} for recipe in RECIPES}
    print(json.dumps(found))


def _pin_versions() -> None:
    """Before the program is imported: it may take these functions by their names."""
    actual = importlib.metadata.version
    importlib.metadata.version = lambda distribution_name: VERSIONS.get(distribution_name) or actual(distribution_name)
    platform.python_version = lambda: PYTHON


def _run(recipe: str, output_format: str, model: Path, folder: Path) -> dict[str, Any]:
    import optimizer

    texts = folder / "texts.txt"
    texts.write_text(TEXTS)
    settings = [f"recipe={recipe}", f"format={output_format}", f"model.path={model}", f"data.path={texts}", "threads=1"]
    unmeasured = ["evaluation=none", "gates.agreement=null", "gates.size_ratio=null"]
    try:
        frame = optimizer.run(optimizer.compose(*settings, *unmeasured, *OPTIONS.get(recipe, [])), out=folder / "out")
    except Exception as error:
        return {"error": str(error).replace(str(folder), "")}
    (row,) = frame.to_dict("records")
    if row["status"] != "ok":
        return {"run_id": row["run_id"], "error": row["error"].replace(str(folder), "")}
    return {"run_id": row["run_id"], "files": _files(folder / "out" / row["artifact"])}


def _files(artifact: Path) -> dict[str, str]:
    """The sha256 of every file that the manifest lists."""
    listed = json.loads((artifact / "manifest.json").read_text())["files"]
    return {name: figures["sha256"] for name, figures in listed.items()}


if __name__ == "__main__":
    _main(sys.argv[1])
