"""What is installed for loading alone loads; what else one asks for is one line that names the extra."""

import os
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import tiny
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Others of `run`, such as pydantic, come with what transformers needs.
RUN = ("hydra", "omegaconf", "pandas", "psutil", "matplotlib", "bitsandbytes", "openvino", "nncf", "optuna")


def needed(requirements: list[str]) -> dict[str, metadata.Distribution]:
    """The distributions that some requirements come to, extras aside, by name."""
    found: dict[str, metadata.Distribution] = {}
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        one = waiting.pop()
        if one.name.lower() in found or (one.marker and not one.marker.evaluate({"extra": ""})):
            continue
        try:
            distribution = metadata.distribution(one.name)
        except metadata.PackageNotFoundError:
            continue  # CUDA's own, which torch names and its CPU wheel goes without
        found[one.name.lower()] = distribution
        waiting += [Requirement(text) for text in distribution.requires or ()]
    return found


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with links to what loading needs, and to this package; nothing else is there."""
    there = tmp_path_factory.mktemp("bare")
    for distribution in needed(PROJECT["dependencies"]).values():
        for path in {Path(str(file)).parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            if not (there / path).exists():
                (there / path).symlink_to(Path(str(distribution.locate_file(path))))
    (there / "optimizer").symlink_to(ROOT / "optimizer")
    return there


def python(bare: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    command = [sys.executable, "-S", "-W", "ignore", *program.split(" ", 1), *arguments]
    return subprocess.run(
        command, env=environment | {"PYTHONPATH": str(bare)}, capture_output=True, text=True, check=False
    )


def test_what_loading_needs_is_all_that_it_needs(bare: Path, tmp_path: Path) -> None:
    original = tiny.save(tiny.bert(), tmp_path / "model")
    tiny.optimize(original, tmp_path / "packed", {"quantize": {"bits": 8}}, format="packed")
    program = (
        "-c import importlib.util, sys, torch, optimizer; "
        "ids = torch.arange(24).reshape(2, 12) * 3 % 96; "
        "answers = [optimizer.load(place)(input_ids=ids).logits for place in sys.argv[1:3]]; "
        "assert (answers[0] - answers[1]).abs().max() < 1; "
        "print(*(name for name in sys.argv[3:] if importlib.util.find_spec(name)))"
    )
    done = python(bare, program, str(original), str(tmp_path / "packed"), *RUN)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


@pytest.mark.parametrize(
    ("program", "line"),
    [
        (
            "-m optimizer",
            "is not installed; run: pip install 'transformer-optimizer[run]'",
        ),
        ("-c import optimizer; optimizer.run", "run: pip install 'transformer-optimizer[run]'"),
    ],
)
def test_what_is_missing_is_one_line_that_names_the_extra(bare: Path, program: str, line: str) -> None:
    done = python(bare, program)
    assert done.returncode in (1, 2)
    said = done.stderr.strip().splitlines()
    assert said[-1].endswith(line)
    assert len(said) == 1 or "-c" in program, done.stderr


def test_an_engine_that_is_missing_is_named(bare: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    original = tiny.save(tiny.bert(), tmp_path / "model")
    tiny.optimize(original, tmp_path / "graph", {}, format="openvino", engine={"precision": "float32"})
    done = python(bare, "-c import sys, optimizer; optimizer.load(sys.argv[1])", str(tmp_path / "graph"))
    assert (
        done.stderr.strip()
        .splitlines()[-1]
        .endswith("graph: needs the package openvino to run; run: pip install 'transformer-optimizer[openvino]'")
    )
