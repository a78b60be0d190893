"""Check what was built, as an index would: valid metadata, the licence, what is typed, no file that is not ours.

python scripts/build.py FOLDER
"""

import argparse
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

from packaging.metadata import Metadata

_NAME = "transformer_optimizer"


def main() -> int:
    """Print what is good, or what is wrong; the exit code is 0 or 1."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("folder", type=Path, help="where the wheel and the source distribution are")
    folder: Path = parser.parse_args().folder
    wrong = []
    for path in (*folder.glob(f"{_NAME}-*.whl"), *folder.glob(f"{_NAME}-*.tar.gz")):
        faults = list(_wheel(path) if path.suffix == ".whl" else _sources(path))
        wrong += [f"{path.name}: {fault}" for fault in faults]
        if not faults:
            print(path)
    if not any(folder.glob(f"{_NAME}-*.whl")) or not any(folder.glob(f"{_NAME}-*.tar.gz")):
        wrong.append(f"{folder}: holds no wheel, or no source distribution")
    print(*wrong, sep="\n", end="\n" if wrong else "", file=sys.stderr)
    return 1 if wrong else 0


def _wheel(path: Path) -> Iterable[str]:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        (about,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        yield from _metadata(archive.read(about))
    yield from _lacking(names, (".dist-info/licenses/LICENSE", "optimizer/py.typed", "optimizer/conf/config.yaml"))
    strange = {name.split("/")[0] for name in names} - {"optimizer", about.split("/")[0]}
    yield from (f"holds {name}, which is not ours" for name in sorted(strange))


def _sources(path: Path) -> Iterable[str]:
    with tarfile.open(path) as archive:
        names = archive.getnames()
        top = path.name.removesuffix(".tar.gz")
        about = archive.extractfile(f"{top}/PKG-INFO")
        assert about is not None
        yield from _metadata(about.read())
    yield from _lacking(names, ("/LICENSE", "/README.md", "/optimizer/py.typed", "/conf/config.yaml"))


def _metadata(text: bytes) -> Iterable[str]:
    try:
        metadata = Metadata.from_email(text)
    except ExceptionGroup as errors:
        yield from (f"metadata: {error}" for error in errors.exceptions)
        return
    if metadata.license_expression != "Apache-2.0":
        yield f"metadata: the licence is {metadata.license_expression}"


def _lacking(names: list[str], ends: tuple[str, ...]) -> Iterable[str]:
    return (f"lacks {end}" for end in ends if not any(name.endswith(end) for name in names))


if __name__ == "__main__":
    sys.exit(main())
