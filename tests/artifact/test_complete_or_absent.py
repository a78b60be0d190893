"""Whatever breaks off the writing of an artifact: what is under its name is complete, and nothing else is left."""

import errno
import multiprocessing
import os
import resource
import shutil
import signal
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny

from optimizer.artifact.write import write
from optimizer.errors import ArtifactError
from optimizer.manifest import Manifest, verify
from optimizer.model.weight import Weight
from optimizer.stages.staging import Staged

HALF: dict[str, Any] = {"cast": {}}
PRUNED: dict[str, Any] = {"prune": {"amount": 0.3}, "cast": {}}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tiny.bert(), tmp_path_factory.mktemp("write") / "tickets", shard_size="100KB")


def contents(directory: Path) -> dict[str, bytes]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def breaking(original: Path, act: Any, after: int = 5) -> Staged:
    """A checkpoint whose weights stream until `act` is called in the middle of a file."""
    at = tiny.staged(original, HALF)
    seen = 0

    def transform(weight: Weight) -> Iterable[Weight]:
        nonlocal seen
        seen += 1
        if seen > after:
            act()
        return [weight]

    return replace(at, transforms=(("break", frozenset(at.outline.places), transform),))


def write_breaking(original: Path, place: Path, act: Any) -> Manifest:
    return write(breaking(original, act), place)


def fail(error: BaseException) -> Any:
    def act() -> None:
        raise error

    return act


@pytest.mark.parametrize("error", [RuntimeError("bug"), KeyboardInterrupt()], ids=["bug", "Ctrl-C"])
def test_nothing_is_left_when_writing_breaks_off(original: Path, tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        write_breaking(original, tmp_path / "artifact", fail(error))
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_when_the_disk_is_full(original: Path, tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(ArtifactError) as caught:
        write_breaking(original, tmp_path / "artifact", fail(full))
    assert str(caught.value) == f"{tmp_path / 'artifact'}: cannot be written (No space left on device)"
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_the_original_that_vanishes_is_named(original: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(original, tmp_path / "tickets")
    at = tiny.staged(copy, HALF)
    lost = sorted(copy.glob("*.safetensors"))[-1]
    lost.unlink()
    with pytest.raises(ArtifactError) as caught:
        write(at, tmp_path / "artifact")
    assert str(caught.value) == f"{lost}: cannot be read (No such file or directory)"
    assert [path.name for path in tmp_path.iterdir()] == ["tickets"]


def test_a_full_disk_is_not_blamed_on_the_file_that_is_copied(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source), None, str(target))

    copy = shutil.copytree(original, tmp_path / "tickets")
    (copy / "notes.txt").touch()
    at = tiny.staged(copy, HALF)
    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(ArtifactError, match=r"artifact: cannot be written \(No space left on device\)$"):
        write(at, tmp_path / "artifact")


def test_nothing_is_left_when_the_system_refuses_to_write(original: Path, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(ArtifactError, match=r"artifact: cannot be written \(File too large\)$"):
            tiny.optimize(original, tmp_path / "artifact", HALF)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be(original: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArtifactError, match=r"cannot be written \(Not a directory\)$"):
        tiny.optimize(original, tmp_path / "file" / "artifact", HALF)


def test_what_was_there_stays_when_writing_breaks_off(original: Path, tmp_path: Path) -> None:
    tiny.optimize(original, tmp_path / "artifact", HALF)
    before = contents(tmp_path / "artifact")
    with pytest.raises(RuntimeError):
        write_breaking(original, tmp_path / "artifact", fail(RuntimeError()))
    assert contents(tmp_path / "artifact") == before
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]


def test_an_artifact_is_replaced_whole(original: Path, tmp_path: Path) -> None:
    tiny.optimize(original, tmp_path / "artifact", HALF)
    (tmp_path / "artifact" / "stale").touch()
    manifest = tiny.optimize(original, tmp_path / "artifact", PRUNED)
    assert verify(tmp_path / "artifact") == manifest
    assert not (tmp_path / "artifact" / "stale").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]


def test_in_the_place_of_its_original_which_is_kept(original: Path, tmp_path: Path) -> None:
    place, kept = tmp_path / "model", tmp_path / "model.original"
    shutil.copytree(original, place)
    before = contents(place)
    manifest = write(tiny.staged(place, HALF), place, keep=kept)
    assert verify(place) == manifest
    assert contents(kept) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "model.original"]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("existing", [False, True], ids=["first", "second"])
def test_killed_in_the_middle(original: Path, tmp_path: Path, existing: bool) -> None:
    place = tmp_path / "artifact"
    before = tiny.optimize(original, place, PRUNED) if existing else None
    child = multiprocessing.get_context("fork").Process(
        target=write_breaking, args=(original, place, lambda: os.kill(os.getpid(), signal.SIGKILL))
    )
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    assert (tmp_path / "artifact.partial").exists()
    if before:
        assert verify(place) == before
    else:
        assert not place.exists()
    manifest = tiny.optimize(original, place, HALF)
    assert verify(place) == manifest
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]


def test_what_a_killed_replacement_left_is_put_right(original: Path, tmp_path: Path) -> None:
    """The names that `put_in_place` uses in between must not stop the next run."""
    place = tmp_path / "artifact"
    tiny.optimize(original, place, HALF)
    shutil.copytree(place, tmp_path / "artifact.replacing")
    shutil.copytree(place, tmp_path / "artifact.replaced")
    (tmp_path / "artifact.replaced" / "manifest.json").unlink()
    manifest = tiny.optimize(original, place, PRUNED)
    assert verify(place) == manifest
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]
