"""Building a directory: complete under its name, or not there at all, whatever fails."""

from pathlib import Path

import pytest

from optimizer.artifact.building import building, partial_name
from optimizer.errors import ArtifactError


def fill(directory: Path, text: str) -> None:
    (directory / "file").write_text(text)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_it_is_there_when_it_is_complete(tmp_path: Path) -> None:
    place = tmp_path / "place"
    for text in ("first", "second"):
        with building(place) as directory:
            fill(directory, text)
            assert not place.exists() or (place / "file").read_text() == "first"
        assert (place / "file").read_text() == text
        assert names(tmp_path) == ["place"]


def test_what_was_there_is_kept_on_demand(tmp_path: Path) -> None:
    for text in ("first", "second"):
        with building(tmp_path / "place", keep=tmp_path / "kept") as directory:
            fill(directory, text)
    assert (tmp_path / "kept" / "file").read_text() == "first"
    assert names(tmp_path) == ["kept", "place"]


@pytest.mark.parametrize("error", [ValueError("bug"), KeyboardInterrupt(), ArtifactError("damaged")])
def test_nothing_is_left_of_what_breaks_off(tmp_path: Path, error: BaseException) -> None:
    def broken() -> None:
        with building(tmp_path / "place") as directory:
            fill(directory, "half")
            raise error

    with pytest.raises(type(error)):
        broken()
    assert names(tmp_path) == []


def test_what_a_killed_one_left_is_not_found_inside(tmp_path: Path) -> None:
    fill_me = partial_name(tmp_path / "place")
    fill_me.mkdir()
    fill(fill_me, "half")
    with building(tmp_path / "place") as directory:
        assert names(directory) == []


def test_the_file_that_cannot_be_read_is_blamed_or_the_place(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with pytest.raises(ArtifactError) as caught, building(tmp_path / "place", source=source):
        (source / "lost").read_text()
    assert str(caught.value) == f"{source / 'lost'}: cannot be read (No such file or directory)"
    with pytest.raises(ArtifactError) as caught, building(tmp_path / "place", source=source) as directory:
        (directory / "no folder" / "file").write_text("x")
    assert str(caught.value) == f"{tmp_path / 'place'}: cannot be written (No such file or directory)"
