"""The manifest: what it lists, and every difference from it named."""

import hashlib
import json
from pathlib import Path

import pytest

from optimizer.errors import ArtifactError
from optimizer.manifest import (
    FORMAT_VERSION,
    Manifest,
    describe_files,
    read_manifest,
    verify,
    versions,
    write_manifest,
)


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    directory = tmp_path / "artifact"
    (directory / "nested").mkdir(parents=True)
    (directory / "config.json").write_text("{}")
    (directory / "model.safetensors").write_bytes(b"weights")
    (directory / "nested" / "empty.txt").touch()
    (directory / "README.md").write_text("card")
    write_manifest(directory, manifest_of(directory))
    return directory


def manifest_of(directory: Path) -> Manifest:
    return Manifest(FORMAT_VERSION, "dense", "tickets", "f" * 64, 1000, 10, versions(), describe_files(directory))


def refusal(directory: Path) -> str:
    with pytest.raises(ArtifactError) as caught:
        verify(directory)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_file_but_itself_and_the_card_is_listed(artifact: Path) -> None:
    assert describe_files(artifact) == {
        "config.json": {"sha256": hashlib.sha256(b"{}").hexdigest(), "bytes": 2},
        "model.safetensors": {"sha256": hashlib.sha256(b"weights").hexdigest(), "bytes": 7},
        "nested/empty.txt": {"sha256": hashlib.sha256(b"").hexdigest(), "bytes": 0},
    }


def test_a_card_or_manifest_further_down_is_a_file_like_any(artifact: Path) -> None:
    (artifact / "nested" / "README.md").write_text("x")
    assert "nested/README.md" in describe_files(artifact)


def test_read_back_as_written(artifact: Path) -> None:
    assert read_manifest(artifact) == manifest_of(artifact)
    assert verify(artifact) == manifest_of(artifact)
    text = (artifact / "manifest.json").read_text()
    write_manifest(artifact, read_manifest(artifact))
    assert (artifact / "manifest.json").read_text() == text


def test_the_versions_of_what_decides_the_bytes() -> None:
    assert {"python", "torch", "transformers", "bitsandbytes", "safetensors"} <= set(versions())


def test_a_package_that_is_not_there_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optimizer.manifest._PACKAGES", ("torch", "no-such-package"))
    assert set(versions()) == {"optimizer", "python", "torch"}


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "nested/empty.txt"])
def test_a_missing_file_is_named(artifact: Path, name: str) -> None:
    (artifact / name).unlink()
    assert refusal(artifact) == f"{artifact / name}: is missing; make the artifact again"


@pytest.mark.parametrize("content", [b"weightS", b"weights ", b""])
def test_a_changed_file_is_named(artifact: Path, content: bytes) -> None:
    (artifact / "model.safetensors").write_bytes(content)
    assert refusal(artifact) == (
        f"{artifact / 'model.safetensors'}: is not what the manifest says; make the artifact again"
    )


def test_the_card_may_change_and_files_may_be_added(artifact: Path) -> None:
    (artifact / "README.md").write_text("measured")
    (artifact / "notes.txt").write_text("x")
    verify(artifact)


def test_no_artifact(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"{tmp_path}: is no artifact (it holds no manifest.json)"
    assert refusal(tmp_path / "nowhere").startswith(f"{tmp_path / 'nowhere'}: is no artifact")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '{"format_version": 1}', "null"])
def test_another_file_of_this_name(artifact: Path, text: str) -> None:
    (artifact / "manifest.json").write_text(text)
    assert refusal(artifact).startswith(f"{artifact / 'manifest.json'}: is no manifest of an artifact (")


def test_a_manifest_of_a_later_release(artifact: Path) -> None:
    path = artifact / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 99, "new_key": 1}))
    assert refusal(artifact) == f"{path}: format version 99 is not {FORMAT_VERSION}; use the release that wrote it"
