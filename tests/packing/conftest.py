"""Packed artifacts beside the dense ones of the same recipe."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
from artifacts import MODELS


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    directory = tmp_path_factory.mktemp("originals")

    def original(name: str) -> Path:
        if not (directory / name).exists():
            tiny.save(MODELS[name](), directory / name)
        return directory / name

    return original


@pytest.fixture
def both(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """The same recipe on the same original, packed and dense."""

    def make(original: Path, stages: dict[str, Any]) -> tuple[Path, Path]:
        for output_format in ("packed", "dense"):
            tiny.optimize(original, tmp_path / output_format, stages, format=output_format)
        return tmp_path / "packed", tmp_path / "dense"

    return make
