"""The card: what a reader needs, before and after measuring."""

from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from optimizer.artifact.card import write_card
from optimizer.errors import ArtifactError
from optimizer.manifest import FORMAT_VERSION, Manifest
from optimizer.recipe import Recipe, parse
from optimizer.rows.row import Row

RECIPE = parse(
    {"name": "half", "stages": {"prune": {"pattern": "2:4"}, "cast": {}}, "model": {"path": "/secret/place"}}
)
MANIFEST = Manifest(FORMAT_VERSION, "dense", "team/tickets", "ab" * 32, 1000, 10, {"torch": "2.13"}, {})


def card(directory: Path, figures: Row | None, recipe: Recipe = RECIPE) -> str:
    write_card(directory, MANIFEST, recipe.made_by(), figures)
    return (directory / "README.md").read_text()


def test_before_measuring(tmp_path: Path) -> None:
    text = card(tmp_path, None)
    assert "\n---\n\n# team/tickets, optimized by the recipe `half`\n" in text
    assert "## Measured\n\nNothing yet.\n" in text
    assert "abababababababab" in text
    assert "torch 2.13" in text
    assert "/secret/place" not in text


@pytest.mark.parametrize(
    ("format_", "said"),
    [
        ("dense", "It needs bitsandbytes wherever it is loaded: `pip install bitsandbytes`."),
        ("packed", "It needs bitsandbytes wherever it is loaded, unpacked too: `pip install "),
    ],
)
def test_what_codes_need_is_said(tmp_path: Path, format_: str, said: str) -> None:
    recipe = parse({"stages": {"bitsandbytes": {}}, "format": format_})
    write_card(tmp_path, replace(MANIFEST, format=format_), recipe.made_by(), None)
    assert f"\n{said}" in (tmp_path / "README.md").read_text()
    write_card(tmp_path, replace(MANIFEST, format=format_), RECIPE.made_by(), None)
    assert "It needs" not in (tmp_path / "README.md").read_text()


def test_what_was_measured_and_nothing_else(tmp_path: Path) -> None:
    row = Row(run_id="a-1", status="ok", agreement=0.123456789, examples=0, data="texts", error="secret")
    text = card(tmp_path, row)
    assert "| agreement | 0.123457 |" in text
    assert "| examples | 0 |" in text
    assert "| data | texts |" in text
    assert "speedup" not in text
    assert "secret" not in text
    assert "Nothing yet" not in text


def test_the_recipe_on_it_makes_the_artifact_again(tmp_path: Path) -> None:
    yaml = card(tmp_path, None).split("```yaml\n")[1].split("```")[0]
    values = OmegaConf.to_container(OmegaConf.create(yaml))
    assert isinstance(values, dict)
    assert parse({str(key): value for key, value in values.items()}).steps == RECIPE.steps


def test_replaced_whole_with_nothing_left_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = card(tmp_path, None)

    def full(path: Path, text: str, encoding: str) -> None:
        path.touch()
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(ArtifactError, match=r"README\.md: cannot be written \(No space left on device\)$"):
            write_card(tmp_path, MANIFEST, RECIPE.made_by(), Row(run_id="a-1", status="ok"))
    assert (tmp_path / "README.md").read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
