"""What the package is called, what it brings, and that every text names its extras right."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from optimizer import errors
from optimizer.formats import FORMATS

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = set(PROJECT["optional-dependencies"])
TEXTS = [
    path
    for folder in ("optimizer", "conf", "scripts", "tests", "docs", ".")
    for path in (ROOT / folder).glob("*" if folder == "." else "**/*")
    if path.suffix in (".py", ".md", ".yaml", ".sh", ".jinja") or (path.is_file() and not path.suffix)
]


def test_the_licence_is_there() -> None:
    assert PROJECT["license"] == "Apache-2.0"
    assert "Apache License\n                           Version 2.0, January 2004" in (ROOT / "LICENSE").read_text()
    assert (ROOT / "optimizer" / "py.typed").exists()


def test_no_text_recommends_the_package_of_strangers() -> None:
    ours = Path(__file__)
    for path in TEXTS:
        if path != ours:
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"pip install (-\S+ )*['\"]?optimizer\b", text), path
            assert not re.search(r"(?<!transformer-)\boptimizer\[[a-z]+\]", text), path


def test_every_extra_that_a_text_names_exists() -> None:
    assert errors.install("ray") == f"pip install '{PROJECT['name']}[ray]'"
    named = {
        extra
        for path in TEXTS
        for extra in re.findall(re.escape(PROJECT["name"]) + r"\[(\w+)\]", path.read_text(encoding="utf-8"))
    }
    assert named >= {"openvino", "onnx", "ray", "submitit"}
    asked = {
        call.args[0].value if isinstance(call.args[0], ast.Constant) else None
        for path in (ROOT / "optimizer").rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "install"
    }
    # Those that are no constant are of the formats and of the launchers, which name an extra as its package.
    formats = {kind.extra for kind in FORMATS.values() if kind.extra}
    assert named | (asked - {None}) | formats | {"ray", "submitit"} <= EXTRAS


def test_the_console_script_is_not_shadowed_by_a_file_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "optimizer.py").write_text("print('somebody else')\n")
    module = [sys.executable, "-m", "optimizer", "--version"]
    script = [str(Path(sys.executable).with_name("optimizer")), "--version"]
    said = [subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
            for command in (module, script)]  # fmt: skip
    assert said == ["somebody else\n", f"optimizer {PROJECT['version']} ({ROOT / 'optimizer'})\n"]
