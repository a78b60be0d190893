#!/usr/bin/env python3
"""Compare optimized models with their original: size on disk, inference time, differences in the predictions.

python scripts/test_optimized_model.py --original DIR --optimized NAME:DIR [NAME:DIR ...] [--data FILE]
"""

import argparse
import sys
import tempfile
from pathlib import Path

from optimizer.errors import OptimizerError, RecipeError
from optimizer.processes.pipe import until_closed


def main() -> int:
    """Parse the flags, measure, print the table; the exit code is 0, 1 when one fails, 2 with one line on stderr."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], epilog="Explained in docs/guide.md of the project."
    )
    parser.add_argument("--original", required=True, help="directory of the original model")
    parser.add_argument("--optimized", required=True, nargs="+", metavar="NAME:DIR", help="the models to compare")
    parser.add_argument("--data", help="texts: jsonl, csv, parquet or txt (default: texts shipped with the package)")
    parser.add_argument("--page", metavar="DIR", help="also write report.html, its plots and a Markdown table there")
    arguments = parser.parse_args()
    try:
        good = _compare(arguments.original, _named(arguments.optimized), arguments.data, arguments.page)
    except OptimizerError as error:
        print(f"test_optimized_model: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0 if good else 1


def _compare(original: str, optimized: dict[str, Path], data: str | None, page: str | None) -> bool:
    from optimizer.data.texts import DataSettings
    from optimizer.report.page import write_report
    from optimizer.report.table import show
    from optimizer.runs.comparing import compare

    settings = DataSettings(path=data) if data else DataSettings()
    with tempfile.TemporaryDirectory() as cache:
        rows = compare(original, optimized, Path(cache), settings)
    show(rows)
    for row in rows:
        if row.error:
            print(f"{row.run_id}: {row.status}: {row.error}", file=sys.stderr)
    if page:
        print(f"page: {write_report(rows, Path(page))}")
    return all(row.status == "ok" for row in rows)


def _named(words: list[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for word in words:
        name, colon, directory = word.partition(":")
        if not (name and colon and directory):
            raise RecipeError(f"--optimized: '{word}': write NAME:DIR, such as fp16:models/fp16")
        if name in found:
            raise RecipeError(f"--optimized: '{name}' is there twice; give each directory a name of its own")
        found[name] = Path(directory)
    return found


if __name__ == "__main__":
    sys.exit(until_closed(main))
