"""Replacing a directory: killed at any moment, nothing is lost and the next run goes on."""

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from optimizer.artifact import exchange
from optimizer.artifact.exchange import kept_name, put_in_place, recover
from optimizer.errors import ArtifactError
from optimizer.manifest import FORMAT_VERSION, Manifest, describe_files, write_manifest
from optimizer.model.directory import fingerprint

STEPS = 4  # the most single operations that a replacement takes


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "model"


def original(directory: Path, text: str = "original") -> Path:
    """A model that is no artifact."""
    (directory / "nested").mkdir(parents=True)
    (directory / "weights").write_text(text)
    (directory / "nested" / "tokenizer").write_text("words")
    return directory


def artifact(directory: Path, text: str, made_from: str) -> Path:
    """A complete artifact of the original with the fingerprint `made_from`."""
    directory.mkdir()
    (directory / "weights").write_text(text)
    files = describe_files(directory)
    write_manifest(directory, Manifest(FORMAT_VERSION, "dense", "model", made_from, 1, 1, {}, files))
    return directory


def content(directory: Path) -> str | None:
    path = directory / "weights"
    return path.read_text() if path.exists() else None


def without_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a system that lacks renameat2."""
    monkeypatch.setattr(exchange, "_exchange", lambda first, second: False)


def kill_before(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """End the process instead of its operation number `step`; a removal is ended halfway, its manifest gone first."""
    done = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal done
            if done == step:
                if function is remove:
                    (arguments[0] / "manifest.json").unlink(missing_ok=True)
                raise Killed
            done += 1
            return function(*arguments, **options)

        return call

    remove = shutil.rmtree
    monkeypatch.setattr(Path, "rename", counted(Path.rename))
    monkeypatch.setattr(exchange, "_exchange", counted(exchange._exchange))
    monkeypatch.setattr(shutil, "rmtree", counted(remove))


@pytest.fixture(params=[True, False], ids=["exchange", "two renames"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.param:
        without_exchange(monkeypatch)


def test_where_nothing_was(place: Path) -> None:
    put_in_place(original(place.with_name("new"), "new"), place)
    assert content(place) == "new"
    assert [path.name for path in place.parent.iterdir()] == ["model"]


@pytest.mark.usefixtures("system")
def test_what_was_there_is_removed(place: Path) -> None:
    original(place, "old")
    put_in_place(original(place.with_name("new"), "new"), place)
    assert content(place) == "new"
    assert [path.name for path in place.parent.iterdir()] == ["model"]


@pytest.mark.usefixtures("system")
def test_what_was_there_is_kept(place: Path) -> None:
    original(place, "old")
    put_in_place(original(place.with_name("new"), "new"), place, keep=place.with_name("kept"))
    assert content(place) == "new"
    assert content(place.with_name("kept")) == "old"
    assert sorted(path.name for path in place.parent.iterdir()) == ["kept", "model"]


def test_this_system_exchanges_in_one_step(tmp_path: Path) -> None:
    first, second = original(tmp_path / "first", "1"), original(tmp_path / "second", "2")
    if not exchange._exchange(first, second):
        pytest.skip("no renameat2 here")
    assert (content(first), content(second)) == ("2", "1")


def test_an_exchange_that_fails_for_a_real_reason_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        exchange._exchange(tmp_path / "nowhere", tmp_path / "either")


@pytest.mark.parametrize("step", range(STEPS + 1))
@pytest.mark.usefixtures("system")
def test_killed_while_an_original_is_replaced(place: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    made_from = fingerprint(original(place))
    keep = place.with_name("model.original")
    new = artifact(place.with_name("model.partial"), "new", made_from)
    with monkeypatch.context() as patch:
        kill_before(patch, step)
        with suppress(Killed):
            put_in_place(new, place, keep)
    recover(place)
    everywhere = {path.name: content(path) for path in place.parent.iterdir()}
    assert everywhere["model"] in ("original", "new")
    assert "original" in everywhere.values()
    where = place if everywhere["model"] == "original" else keep
    assert fingerprint(where) == made_from
    assert not place.with_name("model.replacing").exists()
    assert recover(place) is None


@pytest.mark.parametrize("step", range(STEPS + 1))
@pytest.mark.usefixtures("system")
def test_killed_while_an_older_artifact_is_replaced(place: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    artifact(place, "old", "a" * 64)
    new = artifact(place.with_name("model.partial"), "new", "b" * 64)
    with monkeypatch.context() as patch:
        kill_before(patch, step)
        with suppress(Killed):
            put_in_place(new, place)
    recover(place)
    assert content(place) in ("old", "new")
    assert (place / "manifest.json").exists()
    assert {path.name for path in place.parent.iterdir()} <= {"model", "model.partial"}
    assert recover(place) is None
    shutil.rmtree(new, ignore_errors=True)
    put_in_place(artifact(place.with_name("again"), "newer", "c" * 64), place)
    assert content(place) == "newer"


@pytest.mark.parametrize("step", range(STEPS))
@pytest.mark.parametrize("again", range(3))
@pytest.mark.usefixtures("system")
def test_killed_again_while_putting_it_right(
    place: Path, monkeypatch: pytest.MonkeyPatch, step: int, again: int
) -> None:
    artifact(place, "old", "a" * 64)
    new = artifact(place.with_name("model.partial"), "new", "b" * 64)
    with monkeypatch.context() as patch, suppress(Killed):
        kill_before(patch, step)
        put_in_place(new, place)
    with monkeypatch.context() as patch, suppress(Killed):
        kill_before(patch, again)
        recover(place)
    recover(place)
    assert content(place) in ("old", "new")
    assert (place / "manifest.json").exists()


def test_nothing_to_put_right(place: Path) -> None:
    assert recover(place) is None
    original(place)
    assert recover(place) is None
    assert content(place) == "original"


def test_each_outcome_is_told(place: Path) -> None:
    waiting = place.with_name("model.replacing")
    made_from = fingerprint(original(waiting))
    assert recover(place) == f"{place}: put in place the artifact that an interrupted run had finished"
    shutil.rmtree(place)
    original(waiting)
    artifact(place, "new", made_from)
    kept = place.with_name("model.original")
    assert recover(place) == f"{kept}: is the original that an interrupted run had replaced"
    artifact(waiting, "older", "a" * 64)
    assert recover(place) == f"{waiting}: removed what an interrupted run had left"


def test_a_directory_of_unknown_origin_is_not_touched(place: Path) -> None:
    waiting = original(place.with_name("model.replacing"), "precious")
    original(place)
    with pytest.raises(ArtifactError) as caught:
        recover(place)
    assert str(caught.value) == f"{waiting}: was left by an interrupted run and is no artifact; move it away first"
    assert content(waiting) == "precious"


def test_a_free_name_for_what_is_kept(place: Path) -> None:
    names = []
    for _ in range(3):
        kept = kept_name(place)
        names.append(kept.name)
        kept.mkdir()
    assert names == ["model.original", "model.original-2", "model.original-3"]
