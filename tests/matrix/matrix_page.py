"""docs/families.md, written from the table of cells: PYTHONPATH=.:tests python tests/matrix/matrix_page.py."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from matrix_cells import CROSSED, EVERY, RECIPES, REFUSED, Cell, Reason, expected
from matrix_originals import DECODERS, ENCODERS, HEADS, LAYOUTS, OTHERS

PAGE = Path(__file__).parents[2] / "docs" / "families.md"
_SECTIONS = {
    "Encoders": ENCODERS,
    "Language models": DECODERS,
    "Sequence to sequence, images, sound": OTHERS,
    "Heads": HEADS,
    "Precisions and files": LAYOUTS,
}
_HEAD = """# Which models, which recipes

For whoever asks whether a recipe is for their kind of model. Tiny models of every kind below, built from their
configurations, go through every recipe that is shipped. **yes** says: the artifact is made, loads in a fresh process,
and answers the same as a model does that holds the weights that the recipe's stages make; a graph in 8 bits within 30 %
in root mean squares, on models whose random weights are harder to round than trained ones. A number is the reason why
the combination is refused, listed [below](#reasons) with what to write instead. A recipe that stores weights is tried
in both of their formats, `dense` and `packed`; `best`, `fastest`, `smallest` and `smallest_steps` are tried without
their search, which starts from there; of `smallest` and `best` the dense artifact says what is expected of the others.

This page is written from the table that `tests/matrix` holds the program to; do not edit it.
"""
_CROSSED = """## Recipes in other formats

The same for the BERT classifier, with `format=` beside the recipe.
"""


def text() -> str:
    """The page as it is to be."""
    return "\n".join([_HEAD, *_families(), _CROSSED, *_formats(), "", "## Reasons", "", *_reasons()]) + "\n"


def _families() -> Iterator[str]:
    for title, originals in _SECTIONS.items():
        rows = [[original.title, *(_cell(name, recipe) for recipe in RECIPES)] for name, original in originals.items()]
        yield from (f"## {title}", "", *_table(["", *map("`{}`".format, RECIPES)], rows), "")


def _cell(original: str, recipe: str) -> str:
    """What is expected of a recipe in the formats that it is tried in, in a word where they agree."""
    said = {cell.format: _word(expected(original, cell)) for cell in EVERY if cell.recipe == recipe}
    if len(set(said.values())) == 1:
        return next(iter(said.values()))
    return ", ".join(f"{format} {word}" for format, word in said.items())


def _formats() -> Iterator[str]:
    formats = list(dict.fromkeys(cell.format for cell in (*EVERY, *CROSSED)))
    rows = [
        [f"`{recipe}`", *(_word(expected("bert", Cell(recipe, format))) for format in formats)] for recipe in RECIPES
    ]
    yield from _table(["", *map("`{}`".format, formats)], rows)


def _word(reason: Reason | None) -> str:
    return "yes" if reason is None else str(_numbered().index(reason) + 1)


def _numbered() -> list[Reason]:
    return list(dict.fromkeys(refused.reason for refused in REFUSED))


def _reasons() -> Iterator[str]:
    for number, reason in enumerate(_numbered(), start=1):
        yield f"{number}. `{reason.line}`"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield from ("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows))


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(text(), encoding="utf-8")
    print(PAGE)
