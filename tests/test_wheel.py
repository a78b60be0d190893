"""The wheel: complete, installable anywhere, and working without the repository."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from command_line import rows

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, as scripts/build makes and checks it."""
    there = tmp_path_factory.mktemp("wheel")
    done = subprocess.run([ROOT / "scripts" / "build", there], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = there.glob("*.whl")
    assert done.stdout.splitlines() == [str(built), *map(str, there.glob("*.tar.gz"))]
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which Python finds the wheel and what it needs, and no trace of the repository."""
    target = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return kept | {"PYTHONPATH": os.pathsep.join([str(target), sysconfig.get_path("purelib")])}


def python(installed: dict[str, str], place: Path, *arguments: str) -> str:
    """What Python prints, run in `place`; -S leaves out the hook of an editable installation of the repository."""
    command = [sys.executable, "-S", *arguments]
    done = subprocess.run(command, cwd=place, env=installed, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_holds_every_module_configuration_and_the_demo(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    expected = {path.relative_to(ROOT).as_posix() for path in (ROOT / "optimizer").rglob("*.py")}
    expected |= {f"optimizer/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "conf").rglob("*.yaml")}
    demo = ROOT / "optimizer" / "demo"
    expected |= {path.relative_to(ROOT).as_posix() for path in (demo / "model").iterdir()}
    expected |= {
        path.relative_to(ROOT).as_posix() for path in demo.iterdir() if path.suffix in (".jsonl", ".txt", ".toml")
    }
    expected |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "optimizer" / "report").glob("page.*")}
    expected.add("optimizer/py.typed")
    assert {"optimizer/demo/model/model.safetensors", "optimizer/report/page.html.jinja"} <= expected
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert {name.partition("/")[0] for name in names} == {"optimizer", wheel.name.rsplit("-", 3)[0] + ".dist-info"}


def test_it_runs_from_any_directory(installed: dict[str, str], tmp_path: Path) -> None:
    where = python(installed, tmp_path, "-c", "import optimizer, sys; print(optimizer.__file__, *sys.path, sep='\\n')")
    assert where.startswith(installed["PYTHONPATH"].partition(os.pathsep)[0])
    assert str(ROOT) not in where.splitlines()
    python(installed, tmp_path, "-m", "optimizer", "recipe=fp16", "evaluation=none")
    (row,) = rows(tmp_path / "outputs")
    assert (row["status"], row["model"], row["recipe"]) == ("ok", "demo", "fp16")
    assert row["size_ratio"].startswith("0.50")


def test_its_help_names_the_shipped_recipes(installed: dict[str, str], tmp_path: Path) -> None:
    out = python(installed, tmp_path, "-m", "optimizer", "--help")
    for path in (ROOT / "conf" / "recipe").glob("*.yaml"):
        assert path.stem in out
    assert not list(tmp_path.iterdir())
