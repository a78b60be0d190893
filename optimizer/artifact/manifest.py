"""The record that an artifact carries of how it was made, and the check that it is still so."""

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from optimizer import __version__
from optimizer.errors import ArtifactError

NAME = "manifest.json"
CARD = "README.md"
FORMAT_VERSION = 1
_PACKAGES = ("torch", "transformers", "bitsandbytes", "numpy", "safetensors")


@dataclass(frozen=True)
class Manifest:
    """Where an artifact comes from, what decided its bytes, and the sha256 and size of its files.

    It lists every file but itself and the card, and holds no path, no time. `calibration` says of the texts that were
    calibrated on, if any were, their fingerprint and number, and on what they were run through the model;
    `original_commit` is that of an original from the hub.
    """

    format_version: int
    format: str
    original: str
    original_fingerprint: str
    original_bytes: int
    parameters: int
    versions: dict[str, str]
    files: dict[str, dict[str, Any]]
    calibration: Mapping[str, Any] | None = None
    original_commit: str | None = None


def versions(packages: Iterable[str] = ()) -> dict[str, str]:
    """The versions of everything that decides an artifact's bytes: `packages` are those of its stages and format."""
    found = {"python": platform.python_version(), "optimizer": __version__}
    for package in {*_PACKAGES, *packages}:
        try:
            found[package] = _version(package)
        except PackageNotFoundError:
            continue
    return dict(sorted(found.items()))


_version = cache(version)  # which reads and parses a file each time


def describe_files(directory: Path) -> dict[str, dict[str, Any]]:
    """sha256 and size in bytes of every file that a manifest lists, by its path below `directory`."""
    found = {}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_file() and name not in (NAME, CARD):
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            found[name] = {"sha256": digest, "bytes": path.stat().st_size}
    return found


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write the manifest as sorted JSON."""
    optional = ("calibration", "original_commit")
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
            return Manifest(**values)
    except FileNotFoundError:
        raise ArtifactError(f"{directory}: is no artifact (it holds no {NAME})") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ArtifactError(f"{path}: is no manifest of an artifact ({error})") from None
    raise ArtifactError(f"{path}: format version {found} is not {FORMAT_VERSION}; use the release that wrote it")


def verify(directory: Path) -> Manifest:
    """Read the manifest and check every file against it; ArtifactError names the first that differs."""
    manifest = read_manifest(directory)
    present = describe_files(directory)
    for name, expected in manifest.files.items():
        if name not in present:
            raise ArtifactError(f"{directory / name}: is missing; make the artifact again")
        if present[name] != expected:
            raise ArtifactError(f"{directory / name}: is not what the manifest says; make the artifact again")
    return manifest
