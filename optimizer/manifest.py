"""The record that an artifact carries of how it was made, and the check that it is still so."""

import hashlib
import json
import platform
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from optimizer.errors import ArtifactError

NAME = "manifest.json"
CARD = "README.md"
FORMAT_VERSION = 1
AGAIN = "make the artifact again"
"""What to do about one that is not what was written."""
_OURS = b'"original_fingerprint"'
_DISTRIBUTIONS = {"optimizer": "transformer-optimizer"}  # where pip calls a package otherwise
_PACKAGES = ("optimizer", "torch", "transformers", "bitsandbytes", "numpy", "safetensors")


Listed = dict[str, dict[str, Any]]
"""What is said of each file, or of each tensor, by its name."""


@dataclass(frozen=True)
class Manifest:
    """Where an artifact comes from, what decided its bytes, and what its files and tensors are.

    `files` gives the sha256 and size of every file but itself and the card; it holds no path, no time. `calibration`
    says of the texts that were calibrated on, if any were, their fingerprint and number, and on what they were run
    through the model. `tensors` gives of each tensor what it restores to: shape, dtype as safetensors call it, sha256
    of its bytes; and `stored_sha256` where something else is stored in its place. It is None for a graph, and in
    artifacts of before there were such lists. `original_commit` is that of an original from the hub.
    """

    format_version: int
    format: str
    original: str
    original_fingerprint: str
    original_bytes: int
    parameters: int
    versions: dict[str, str]
    files: Listed
    calibration: Mapping[str, Any] | None = None
    tensors: Listed | None = None
    original_commit: str | None = None


def versions(packages: Iterable[str] = ()) -> dict[str, str]:
    """The versions of everything that decides an artifact's bytes: `packages` are those of its stages and format."""
    found = {"python": platform.python_version()}
    for package in {*_PACKAGES, *packages}:
        try:
            found[package] = _version(_DISTRIBUTIONS.get(package, package))
        except PackageNotFoundError:
            continue
    return dict(sorted(found.items()))


_version = cache(version)  # which reads and parses a file each time


def describe_files(directory: Path) -> Listed:
    """sha256 and size in bytes of every file that a manifest lists, by its path below `directory`."""
    return {name: _described(path) for name, path in _present(directory).items()}


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write the manifest as sorted JSON."""
    optional = ("calibration", "tensors", "original_commit")
    values = {key: value for key, value in asdict(manifest).items() if key not in optional or value is not None}
    text = json.dumps(values, indent=2, sort_keys=True) + "\n"
    (directory / NAME).write_text(text, encoding="utf-8")


def read_manifest(directory: Path) -> Manifest:
    """The manifest of an artifact; ArtifactError when there is none, or one of an unknown version."""
    path = directory / NAME
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        found = values["format_version"]
        if found == FORMAT_VERSION:
            return _checked(Manifest(**values))
    except FileNotFoundError:
        raise ArtifactError(f"{directory}: is no artifact (it holds no {NAME})") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ArtifactError(f"{path}: is no manifest of an artifact ({error})") from None
    raise ArtifactError(f"{path}: format version {found} is not {FORMAT_VERSION}; use the release that wrote it")


def find_manifest(directory: Path) -> Manifest | None:
    """The manifest of a directory that may be no artifact: None without one, also where that file is a stranger's.

    Raises ArtifactError for one of ours that is damaged.
    """
    path = directory / NAME
    if not path.is_file():
        return None
    with suppress(OSError):  # which reading it will say
        if _OURS not in path.read_bytes():
            return None
    return read_manifest(directory)


def verify(directory: Path) -> Manifest:
    """Read the manifest and check every file against it; ArtifactError names the first that differs."""
    manifest = read_manifest(directory)
    refuse(file_faults(directory, manifest.files))
    return manifest


def file_faults(directory: Path, files: Listed) -> Iterator[str]:
    """A line for each of these files that is missing or is not what is said of it."""
    present = _present(directory)
    for name, expected in files.items():
        if name not in present:  # as is whatever a name outside the directory stands for
            yield f"{directory / name}: is missing; {AGAIN}"
            continue
        try:
            found = _described(present[name])
        except OSError as error:
            yield f"{directory / name}: cannot be read ({error.strerror or error})"
            continue
        if found != expected:
            yield f"{directory / name}: is not what the manifest says; {AGAIN}"


def refuse(faults: Iterator[str]) -> None:
    """Raise ArtifactError for the first fault, if there is one."""
    for fault in faults:
        raise ArtifactError(fault)


def _checked(manifest: Manifest) -> Manifest:
    lists = [manifest.files] if manifest.tensors is None else [manifest.files, manifest.tensors]
    if not all(isinstance(each, dict) and all(isinstance(one, dict) for one in each.values()) for each in lists):
        raise TypeError("its files and tensors are no mappings of names to mappings")
    return manifest


def _present(directory: Path) -> dict[str, Path]:
    """Every file that a manifest lists, by its path below `directory`."""
    paths = {path.relative_to(directory).as_posix(): path for path in sorted(directory.rglob("*")) if path.is_file()}
    return {name: path for name, path in paths.items() if name not in (NAME, CARD)}


def _described(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"sha256": digest, "bytes": path.stat().st_size}
