"""What tests of formats share."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import WORDS


@pytest.fixture(scope="session")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """`sentences(count)`: a file of about so many different texts of the words that tiny models know."""

    def write(count: int) -> Path:
        draw = random.Random(0)
        lines = {" ".join(draw.choices(WORDS, k=draw.randint(3, 12))) for _ in range(count)}
        file = tmp_path_factory.mktemp("texts") / "texts.txt"
        file.write_text("\n".join(sorted(lines)) + "\n")
        return file

    return write
