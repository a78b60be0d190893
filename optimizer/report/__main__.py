"""The report of the runs in a folder: `python -m optimizer.report out=DIR`."""

import sys
from pathlib import Path

from optimizer.errors import ArtifactError, OptimizerError, RecipeError, lacking
from optimizer.processes.pipe import until_closed
from optimizer.report.junit import write_junit
from optimizer.rows import store

_USAGE = (
    "python -m optimizer.report [out=DIR] [junit=true]   (default: outputs) writes report.html, report.md and "
    "report/*.png there, and junit.xml if that is asked for.\n"
    "Explained in docs/sweeps.md of the project."
)


def main(arguments: list[str]) -> int:
    """Report from the command line; the exit code is 0, or 2 with one line on stderr."""
    if arguments in (["--help"], ["-h"]):
        print(_USAGE)
        return 0
    try:
        out, junit = _asked(arguments)
        print(_report(out, junit=junit))
    except OptimizerError as error:
        print(f"report: {error}", file=sys.stderr)
        return 2
    return 0


def _asked(arguments: list[str]) -> tuple[Path, bool]:
    """The folder, and whether junit.xml is asked for."""
    out, junit = Path("outputs"), False
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name == "out" and value:
            out = Path(value).expanduser()
        elif name == "junit" and value in ("true", "false"):
            junit = value == "true"
        else:
            raise RecipeError(f"unknown argument '{argument}'; write out=DIR or junit=true")
    return out, junit


def _report(out: Path, *, junit: bool) -> Path:
    if not any(out.glob(f"runs/*/{store.ROW_FILE}")):
        raise ArtifactError(f"{out}: holds no runs; write out=DIR, the folder that runs were written to")
    rows = store.assemble(out)
    if not rows:
        raise ArtifactError(f"{out}: holds no row that can be read; run the recipes again")
    try:
        from optimizer.report.page import write_report
    except ModuleNotFoundError as error:
        raise lacking(error, "report") from None
    if junit:
        write_junit(rows, out)
    return write_report(rows, out)


if __name__ == "__main__":
    sys.exit(until_closed(lambda: main(sys.argv[1:])))
