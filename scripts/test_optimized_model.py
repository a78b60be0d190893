#!/usr/bin/env python3
"""Compare optimized models with their original: size on disk, inference time, differences in the predictions.

python scripts/test_optimized_model.py --original DIR --optimized NAME:DIR [NAME:DIR ...] [--data FILE]
"""

import argparse
import sys
import tempfile
from pathlib import Path

from optimizer.errors import OptimizerError, RecipeError


def main() -> int:
    """Parse the flags, measure, print the table; the exit code is 0, or 2 with one line on stderr."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--original", required=True, help="directory of the original model")
    parser.add_argument("--optimized", required=True, nargs="+", metavar="NAME:DIR", help="the models to compare")
    parser.add_argument("--data", help="texts: jsonl, csv, parquet or txt (default: texts shipped with the package)")
    arguments = parser.parse_args()
    try:
        _compare(arguments.original, _named(arguments.optimized), arguments.data)
    except OptimizerError as error:
        print(f"test_optimized_model: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _compare(original: str, optimized: dict[str, Path], data: str | None) -> None:
    from optimizer.compare import compare
    from optimizer.recipe import DataSettings
    from optimizer.report.table import show

    settings = DataSettings(path=data) if data else DataSettings()
    with tempfile.TemporaryDirectory() as cache:
        show(compare(original, optimized, Path(cache), settings))


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
    sys.exit(main())
