"""What grows with the number of runs: a Markdown table of what a stored row costs, and seconds to plan a sweep.

python scripts/benchmark_rows.py [--model DIR --data FILE --rows N ...]
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from optimizer.composing import COMMAND_KEYS, compose
from optimizer.errors import OptimizerError
from optimizer.recipe import parse
from optimizer.rows import store
from optimizer.rows.row import Row, columns
from optimizer.runs.outlook import look_ahead

COMBINATIONS = 1000
MEASURED = dict.fromkeys((*columns("quality", "latency", "memory", "cost"), "size_ratio", "sparsity"), 1 / 3)


def main() -> int:
    """Store rows as sweeps do, plan one, print both; the exit code is 0, or 2 with one line on stderr."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], epilog="Explained in docs/sweeps.md of the project."
    )
    parser.add_argument("--model", default="demo", help="directory of the original (default: the demo)")
    parser.add_argument("--data", default="auto", help="texts (default: those shipped)")
    parser.add_argument("--rows", type=int, nargs="+", default=[100, 1000, 10_000], help="how many rows a sweep has")
    given = parser.parse_args()
    try:
        print("| rows | ms a row, results.csv included | ms for a command of one row more |")
        print("| ---: | ---: | ---: |")
        for count in given.rows:
            sweep, alone = _storing(count)
            print(f"| {count:,} | {1e3 * sweep / count:.2f} | {1e3 * alone:.0f} |", flush=True)
        print(f"\nplanning {COMBINATIONS:,} combinations: {_planning(given.model, given.data):.1f} s")
    except OptimizerError as error:
        print(f"benchmark_rows: {error}", file=sys.stderr)
        return 2
    return 0


def _storing(count: int) -> tuple[float, float]:
    """Seconds for a sweep's rows, and for a command that stores one more and has yet to read all the others."""
    with tempfile.TemporaryDirectory() as folder:
        sweep, again = Path(folder) / "sweep", Path(folder) / "again"
        seconds = _seconds(lambda: _store(sweep, range(count)))
        sweep.rename(again)  # this process knows nothing of the rows there
        return seconds, _seconds(lambda: _store(again, [count]))


def _store(out: Path, numbers: Iterable[int]) -> None:
    with store.assembled(out):
        for number in numbers:
            figures = MEASURED | {"recipe": "balanced", "model": "demo", "created_at": f"{number:06}"}
            store.write_row(out, Row(run_id=f"run-{number:06}", status="ok").with_figures(figures))
            store.follow(out)


def _planning(model: str, data: str) -> float:
    """Seconds from plain recipes to what is to be done, for combinations of the default recipe's two knobs."""
    words = ["recipe=balanced", f"model.path={model}", f"data.path={data}", "evaluation=full"]
    (config,) = compose([*words, "pruning_amount=0.5", "threshold=0.5"])
    plain = {key: value for key, value in config.items() if key not in COMMAND_KEYS}
    stages = plain["stages"]
    combinations = [
        plain | {"stages": stages | {"prune": stages["prune"] | {"amount": number / COMBINATIONS / 2}}}
        for number in range(COMBINATIONS)
    ]
    with tempfile.TemporaryDirectory() as out:
        return _seconds(lambda: look_ahead([parse(recipe) for recipe in combinations], Path(out)))


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
