"""A model directory as its files: all of them, and what sentence-transformers keeps where.

Beside the transformers model it has modules in folders of their own, some with weights (`2_Dense`), listed in
modules.json; older ones have the model in such a folder too (`0_Transformer`).
"""

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from optimizer.errors import ModelError

MODULES = "modules.json"


@dataclass(frozen=True)
class Module:
    """A module of a sentence-transformers model: its folder, empty for the directory itself, and its class's name."""

    folder: str
    kind: str


def modules(directory: Path) -> tuple[Module, ...]:
    """What modules.json lists, () where there is none; ModelError for one that cannot be read or leads elsewhere."""
    path = directory / MODULES
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        found = tuple(Module(entry["path"].strip("/"), entry["type"].rpartition(".")[2]) for entry in entries)
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(f"{path}: is no list of modules ({error}); remove it, or download the model again") from None
    for module in found:
        if ".." in PurePosixPath(module.folder).parts:
            raise ModelError(f"{path}: names '{module.folder}', which is outside the model's directory")
    return found


def home(directory: Path) -> Path:
    """Where config.json and the model's weights lie: the directory, else the folder of the first of its modules."""
    if not (directory / "config.json").exists():
        for module in modules(directory)[:1]:
            if (directory / module.folder / "config.json").exists():
                return directory / module.folder
    return directory


def root_of(place: Path) -> Path:
    """The directory of which `place` is the `home`."""
    above = place.resolve().parent
    return above if not (place / MODULES).exists() and home(above) == place.resolve() else place


def moved_to_root(directory: Path) -> str:
    """The text of modules.json for a directory in which the files of the model's folder lie at the top."""
    folder = home(directory).relative_to(directory).as_posix()
    entries = json.loads((directory / MODULES).read_text(encoding="utf-8"))
    for entry in entries:
        if entry["path"].strip("/") == folder:
            entry["path"] = ""
    return json.dumps(entries, indent=2) + "\n"


def fingerprint(directory: Path) -> str:
    """sha256 over the names and contents of every visible file of a model directory, in hexadecimal.

    Raises ModelError for a file that cannot be read.
    """
    total = hashlib.sha256()
    for path in model_files(directory):
        try:
            stat = path.stat()
            digest = _digest(path, stat.st_size, stat.st_mtime_ns)
        except OSError as error:
            raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from None
        total.update(f"{path.relative_to(directory).as_posix()}\0{digest}\n".encode())
    return total.hexdigest()


def stamps(directory: Path) -> tuple[tuple[str, int, int], ...]:
    """Name, size and time of change of every visible file: what differs once a file has been written again."""
    found = []
    for path in model_files(directory):
        stat = path.stat()
        found.append((path.relative_to(directory).as_posix(), stat.st_size, stat.st_mtime_ns))
    return tuple(found)


def model_files(directory: Path) -> list[Path]:
    """The files of a model directory in a fixed order, hidden ones and training checkpoints left out."""
    found = []
    for path in sorted(directory.rglob("*")):
        parts = path.relative_to(directory).parts
        if any(part.startswith(".") or part.startswith("checkpoint-") for part in parts):
            continue
        if path.is_file():
            found.append(path)
    return found


@lru_cache(maxsize=4096)
def _digest(path: Path, size: int, modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
