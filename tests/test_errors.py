"""What users read of an error that nobody foresaw."""

import pytest

from optimizer.errors import as_optimizer_error, first_line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("it broke\nand more", "it broke"),
        ("\n  it broke  \n", "it broke"),
        (
            "Only by state_dict(). See:\n\nhttps://pytorch.org/a\nmore",
            "Only by state_dict(). See: https://pytorch.org/a",
        ),
        ("Sizes differ:\n\tone:\n\t\ttwo\nthree", "Sizes differ: one: two"),
        ("See:", "See:"),
        ("", "ValueError"),
    ],
)
def test_a_line_that_announces_another_is_told_with_it(text: str, line: str) -> None:
    assert first_line(ValueError(text)) == line
    assert "\n" not in str(as_optimizer_error(ValueError(text)))
