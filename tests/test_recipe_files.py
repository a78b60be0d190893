"""A team's recipe files: what is wrong with one is said with its path, by the command that names it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import one_line

Command = Callable[..., tuple[int, str, str]]
PACKAGE = "# @package _global_\n"


@pytest.fixture
def team(tmp_path: Path) -> Path:
    """The folder of a team's recipes."""
    folder = tmp_path / "team" / "recipe"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stages: {cast: {}}\n", ": lacks its first line; write '# @package _global_' above all others"),
        (f"# what it is for\n{PACKAGE}stages: {{cast: {{}}}}\n", ": lacks its first line; write "),
        ("", ": is empty; write stages, or defaults: [NAME, _self_] to extend the recipe NAME"),
        (f"{PACKAGE}# nothing yet\n", ": is empty; write stages"),
        (f"{PACKAGE}- prune\n- cast\n", ": holds a list, no mapping; write settings as KEY: VALUE"),
        (f"{PACKAGE}stages:\n  prune: amount: 1\n", ":3: is no YAML (mapping values are not allowed here)"),
        (f"{PACKAGE}stages: {{prune: {{amount: '${{pruning_amount'}}}}\n", ": cannot be read ("),
    ],
)
@pytest.mark.parametrize("extended", [False, True])
def test_a_file_that_is_no_recipe_is_named(
    optimizer: Command, tmp_path: Path, team: Path, text: str, said: str, extended: bool
) -> None:
    (team / "ours.yaml").write_text(text)
    (team / "theirs.yaml").write_text(f"{PACKAGE}defaults: [ours, _self_]\nseed: 1\n")
    code, out, err = optimizer("--config-dir", "team", f"recipe={'theirs' if extended else 'ours'}")
    assert (code, out) == (2, "")
    assert f"team/recipe/ours.yaml{said}" in one_line(err)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["team"]


def test_other_files_of_the_folder_do_not_matter(optimizer: Command, team: Path) -> None:
    (team / "ours.yaml").write_text(f"{PACKAGE}defaults: [pruned, _self_]\n")
    (team / "notes.yaml").write_text("- to do\n")
    code, _, err = optimizer("--config-dir", "team", "recipe=ours", "evaluation=none")
    assert code == 0, err


@pytest.mark.parametrize("extending", ["", "defaults: [ours, _self_]\n"])
def test_a_recipe_that_fixes_texts_and_no_model_is_refused(
    optimizer: Command, tmp_path: Path, team: Path, extending: str
) -> None:
    texts = "data: {path: texts.txt, label: ''}\n"
    (tmp_path / "texts.txt").write_text("the cat sees\n")
    (team / "ours.yaml").write_text(f"{PACKAGE}defaults: [fp16, _self_]\n{texts}")
    (team / "theirs.yaml").write_text(f"{PACKAGE}{extending or texts}seed: 1\n")
    words = ("--config-dir", "team", "recipe=theirs", "plan=true")
    code, out, err = optimizer(*words)
    assert (code, out) == (2, "")
    assert f"team/recipe/{'ours' if extending else 'theirs'}.yaml: fixes data.path and no model; write " in one_line(
        err
    )
    assert optimizer(*words, "model.path=demo")[0] == 0
    assert optimizer(*words, "model=demo")[0] == 0
    (team / "theirs.yaml").write_text(f"{PACKAGE}{extending or texts}model: {{path: demo}}\n")
    assert optimizer(*words)[0] == 0


def test_null_stages_are_refused(optimizer: Command) -> None:
    code, _, err = optimizer("recipe=balanced", "stages=null")
    assert code == 2
    assert "write recipe=baseline" in one_line(err)
