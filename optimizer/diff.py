"""What changed between two results: `python -m optimizer.diff A B [--allow size_ratio=+0.01 agreement=-0.002]`.

The command line alone: from Python it is `optimizer.diff`, which a module of that name must not take the place of.
"""

import argparse
import sys
from typing import Any

from optimizer.errors import OptimizerError
from optimizer.processes.pipe import until_closed
from optimizer.report.between import diff

if __name__ == "optimizer.diff":
    raise ImportError("optimizer.diff is a function; its command line is run by python -m optimizer.diff")


def main(arguments: list[str]) -> int:
    """Print the difference as Markdown; the exit code is 0, 1 when a bound is missed, or 2 with one line on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m optimizer.diff",
        description="What got larger, slower, less alike from A to B, and which texts are answered differently.",
        epilog="The exit code is 0, 1 when B is worse than --allow says, 2 when the command is wrong. "
        "Explained in docs/diff.md of the project.",
    )
    where = "an out folder, a results.csv, a row.json, a run's folder or an artifact"
    parser.add_argument("first", metavar="A", help=where)
    parser.add_argument("second", metavar="B", help="another")
    parser.add_argument(
        "--allow",
        nargs="+",
        action="extend",
        default=[],
        metavar="FIGURE=CHANGE",
        help="the most that a figure may change for the worse: size_ratio=+0.01 agreement=-0.002 latency_ms_p50=+5%%",
    )
    given: Any = parser.parse_args(arguments)
    try:
        found = diff(given.first, given.second, given.allow)
    except OptimizerError as error:
        print(f"diff: {error}", file=sys.stderr)
        return 2
    print(found.markdown, end="")
    for line in found.missed:
        print(f"diff: {line}", file=sys.stderr)
    return 1 if found.missed else 0


if __name__ == "__main__":
    sys.exit(until_closed(lambda: main(sys.argv[1:])))
