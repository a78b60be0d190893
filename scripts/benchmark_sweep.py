"""A Markdown table of what a run costs: alone, and in a sweep of twelve on one worker and on two.

python scripts/benchmark_sweep.py [--model DIR --data FILE]
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas

AMOUNTS = ("0.1", "0.2", "0.3", "0.4")
THRESHOLDS = ("1e-4", "1e-3", "1e-2")
RUNS = len(AMOUNTS) * len(THRESHOLDS)


def main() -> int:
    """Run the commands as a user would, print the table; the exit code is 0, or 1 when a run fails."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition(",")[0], epilog="Explained in docs/sweeps.md of the project."
    )
    parser.add_argument("--model", default="demo", help="directory of the original (default: the demo)")
    parser.add_argument("--data", default="auto", help="texts (default: those shipped)")
    given = parser.parse_args()
    common = [f"model.path={given.model}", f"data.path={given.data}", "threads=1"]
    grid = ["-m", "recipe=balanced", f"pruning_amount={','.join(AMOUNTS)}", f"threshold={','.join(THRESHOLDS)}"]
    commands = {
        "alone": ["recipe=balanced"],
        f"sweep of {RUNS}": grid,
        f"sweep of {RUNS}, 2 workers": [*grid, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    }
    print("| command | seconds | seconds a run | at most |")
    print("| --- | ---: | ---: | ---: |")
    start_up = own = 0.0
    for name, arguments in commands.items():
        with tempfile.TemporaryDirectory() as out:
            start = time.perf_counter()
            command = [sys.executable, "-m", "optimizer", *arguments, *common, f"out={out}"]
            done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
            seconds = time.perf_counter() - start
            if done.returncode:
                return 1
            rows = pandas.read_csv(Path(out) / "results.csv")
        if not arguments:
            own = float((rows["optimize_seconds"] + rows["evaluate_seconds"]).sum())
            start_up = seconds - own
        # What a sweep may cost: each run's own stages and evaluation, and one start-up.
        bound = len(rows) * own + start_up
        print(f"| {name} | {seconds:.1f} | {seconds / len(rows):.1f} | {bound:.1f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
