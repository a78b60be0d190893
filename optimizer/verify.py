"""Tell whether artifacts are what was written, file by file and tensor by tensor: `python -m optimizer.verify DIR…`."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optimizer.errors import OptimizerError, as_optimizer_error
from optimizer.formats import format_of
from optimizer.integrity import describe, tensor_faults
from optimizer.manifest import AGAIN, Manifest, file_faults, read_manifest


def faults(directory: Path, *, deep: bool = False) -> list[str]:
    """Every difference of an artifact from what its manifest says was written, a line each; none where it is sound.

    `deep` also restores what is packed, to compare each tensor itself, and reads graphs as a whole.
    """
    try:
        manifest = read_manifest(directory)
    except OptimizerError as error:
        return [str(error)]
    found = list(file_faults(directory, manifest.files))
    try:
        if manifest.tensors is not None:
            found += tensor_faults(directory, manifest.tensors)
        if deep:
            found += _restored_faults(directory, manifest)
    except Exception as error:  # whatever a damaged file does to what reads it
        found.append(str(error) if isinstance(error, OptimizerError) else f"{directory}: {as_optimizer_error(error)}")
    return found


def _restored_faults(directory: Path, manifest: Manifest) -> Iterator[str]:
    """A line for each tensor that restores to something else than is listed; ArtifactError for a damaged one."""
    format_ = format_of(directory)
    if not format_.holds_weights:
        format_.stored(directory, ())
        return
    for name, tensor in format_.plain(directory):
        said = (manifest.tensors or {}).get(name)
        if said and any(said.get(key) != value for key, value in describe(tensor).items()):
            yield f"{directory}: {name}: restores to other values than were written; {AGAIN}"


def main(arguments: list[str]) -> int:
    """Verify from the command line: prints a line for each fault, or that there is none; the exit code is 0, or 1."""
    parser = argparse.ArgumentParser(
        prog="python -m optimizer.verify",
        description="Tell whether artifacts are what was written: every file and every tensor that the manifest lists.",
        epilog="The exit code is 0 when all of them are, 1 when one is not, 2 when the command is wrong. "
        "Explained in docs/loading.md of the project.",
    )
    parser.add_argument("directories", nargs="+", type=Path, metavar="DIR", help="an artifact")
    parser.add_argument(
        "--deep", action="store_true", help="restore what is packed too, and compare each tensor itself"
    )
    given: Any = parser.parse_args(arguments)
    sound = True
    for directory in given.directories:
        found = faults(directory, deep=given.deep)
        print(*(found or [f"{directory}: is what was written"]), sep="\n")
        sound = sound and not found
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
