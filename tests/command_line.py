"""What the command line leaves: the rows of its CSV, its one line of an error."""

import csv
from pathlib import Path


def rows(out: Path) -> list[dict[str, str]]:
    """The rows of the CSV in `out`, by column."""
    with (out / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def one_line(err: str) -> str:
    """`err`, which must be one line."""
    assert err.count("\n") == 1, err
    return err
