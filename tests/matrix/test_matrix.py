"""The promise, cell by cell: an artifact of every recipe and format, of every kind of model, answers as its weights do.

For each original all cells are planned and made as a command does it, loaded in a fresh process that has made none of
them, and asked; what they say is compared with what the weights say that the recipe's stages make, by hand. What is
refused is refused in a line that matrix_cells.py names, with what to write instead; the page is written from the same
table.
"""

import re
from pathlib import Path

import matrix_page
import pytest
from matrix_cells import CROSSED, EVERY, GRAPH_FORMATS, REFUSED, WEIGHT_FORMATS, Cell, expected
from matrix_originals import ORIGINALS
from matrix_outcomes import outcomes

SAMPLE = [Cell("balanced", "dense"), Cell("balanced", "packed"), Cell("compact", "packed"), Cell("int8_onnx", "onnx")]
REFUSALS = [Cell("int8", "dense"), Cell("fastest", "openvino")]


@pytest.mark.parametrize(
    ("original", "cells"),
    [
        pytest.param("distilbert", SAMPLE, id="sample"),
        pytest.param("resnet", REFUSALS, id="refusals"),
        *(pytest.param(name, EVERY, id=name, marks=pytest.mark.slow) for name in ORIGINALS),
        *(
            pytest.param(
                "bert",
                [cell for cell in CROSSED if cell.format == format],
                id=f"bert-as-{format}",
                marks=pytest.mark.slow,
            )
            for format in GRAPH_FORMATS + WEIGHT_FORMATS
        ),
    ],
)
def test_every_cell_answers_or_says_what_to_write_instead(original: str, cells: list[Cell], tmp_path: Path) -> None:
    directory = tmp_path / original
    directory.mkdir()
    ORIGINALS[original].save(directory)
    found = outcomes(directory, cells, ORIGINALS[original].inputs, tmp_path)
    wrong = []
    for cell, said in found.items():
        reason = expected(original, cell)
        if not (reason.matches(said) if reason and said else said is reason):
            wrong.append(f"{original}, {cell}: {said or 'answers'}; expected: {reason.line if reason else 'answers'}")
    assert not wrong, "\n".join(["", *wrong])


def test_every_reason_says_what_to_write_instead() -> None:
    for refused in REFUSED:
        assert re.search(r"; (write|remove) ", refused.reason.line), refused.reason.line


def test_the_page_says_what_is_expected() -> None:
    page = matrix_page.PAGE.read_text(encoding="utf-8")
    assert page == matrix_page.text(), "write it again: PYTHONPATH=.:tests python tests/matrix/matrix_page.py"
