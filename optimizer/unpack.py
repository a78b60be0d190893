"""Write the dense artifact of a packed one, for those who want no dependency: `python -m optimizer.unpack DIR OUT`."""

import argparse
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from optimizer.artifact.building import building, check_free
from optimizer.artifact.card import write_card
from optimizer.errors import ArtifactError, OptimizerError
from optimizer.formats import FORMATS
from optimizer.manifest import describe_files, verify, write_manifest
from optimizer.processes.pipe import until_closed
from optimizer.yaml import dump, load

RECIPE = "recipe.yaml"


def unpack(directory: Path, output: Path) -> None:
    """Write to `output` what loads without this package as the same model that `directory` holds packed.

    Raises ArtifactError when `directory` is no packed artifact or is damaged, or `output` cannot be written or holds
    anything but an artifact, which is replaced.
    """
    manifest = verify(directory)
    packed = FORMATS[manifest.format]
    if packed.unpacks_to is None:
        raise ArtifactError(f"{directory}: is a {manifest.format} artifact already; copy it as it is")
    if output.resolve() == directory.resolve():
        raise ArtifactError(f"{output}: is the packed artifact itself; write another path")
    check_free(output)
    with building(output) as partial:
        unpacked, tensors = packed.unpack(directory, partial)
        for name in manifest.files:
            if name not in unpacked:
                (partial / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(directory / name, partial / name)
        made_by = load(directory / RECIPE) | {"format": packed.unpacks_to}
        (partial / RECIPE).write_text(dump(made_by), encoding="utf-8")
        plain = replace(manifest, format=packed.unpacks_to, files=describe_files(partial), tensors=tensors)
        write_manifest(partial, plain)
        write_card(partial, plain, made_by, figures=None)


def main(arguments: list[str]) -> int:
    """Unpack from the command line; the exit code is 0, or 2 with one line on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m optimizer.unpack",
        description=(__doc__ or "").partition(",")[0],
        epilog="Explained in docs/formats.md of the project.",
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="a packed artifact")
    parser.add_argument("output", type=Path, metavar="OUT", help="where the dense one goes")
    given: Any = parser.parse_args(arguments)
    try:
        unpack(given.directory, given.output)
    except OptimizerError as error:
        print(f"unpack: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(until_closed(lambda: main(sys.argv[1:])))
