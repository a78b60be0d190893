"""README, CONTRIBUTING and docs/ as pages: their links, and every code block run or read, whatever it is written in."""

import ast
import importlib.util
import re
import runpy
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml
from documents import PAGES, ROOT, Block, anchors, blocks, example, headings, links, section

import optimizer
from optimizer import search
from optimizer.composing import compose, compose_launcher
from optimizer.data.texts import DataSettings
from optimizer.engines.mixed_precision import fewest_given_back
from optimizer.evaluation.job import EvaluationSettings
from optimizer.model.locate import ModelSettings
from optimizer.recipe import SEARCH, parse

BLOCKS = blocks()
FOLDER = sorted(page for page in PAGES if page.startswith("docs/"))
TAKEN_FROM_TESTS_OF_THEIR_OWN = {
    ("README.md", "From Python", "python"),
    ("README.md", "The map of the code", "text"),
    ("CONTRIBUTING.md", "A stage", "python"),
    ("CONTRIBUTING.md", "A format", "python"),
    ("docs/command_line.md", "What a run leaves", "text"),
    ("docs/formats.md", "What int8 gives back to float", "text"),
}
"""In `test_readme`, and at the end of this file."""


def of(*languages: str) -> list[Block]:
    """The blocks in these languages that have no test of their own."""
    return [
        block
        for block in BLOCKS
        if block.language in languages
        and (block.page, block.heading, block.language) not in TAKEN_FROM_TESTS_OF_THEIR_OWN
    ]


# pages


def test_the_readme_is_a_page_that_a_person_reads() -> None:
    assert len(PAGES["README.md"].splitlines()) <= 250


@pytest.mark.parametrize("page", [*FOLDER, "CONTRIBUTING.md"])
def test_a_page_says_first_what_it_is_and_whom_it_is_for(page: str) -> None:
    first, rest = PAGES[page].split("\n\n", 1)
    assert re.fullmatch(r"# \S.*", first)
    assert rest.startswith("For whoever ")
    assert [heading for heading in headings(page) if heading.startswith("# ")] == [first]


def test_the_readme_leads_to_every_page() -> None:
    table = section("README.md", "## The pages")
    for page in [*FOLDER, "CONTRIBUTING.md"]:
        assert re.search(rf"^\| \[[\w ]+\]\({re.escape(page)}\) \| \S.* \|$", table, re.MULTILINE), page


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    for link in links(page):
        assert "://" not in link, link  # none needs a network
        path, _, anchor = link.partition("#")
        target = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        assert target.is_file(), link
        if anchor:
            assert anchor in anchors(target.relative_to(ROOT).as_posix()), link


# code blocks


def test_every_code_block_is_run_or_read_by_a_test() -> None:
    seen = {(block.page, block.heading, block.language) for block in BLOCKS}
    assert seen >= TAKEN_FROM_TESTS_OF_THEIR_OWN
    assert len(BLOCKS) == sum(text.count("\n```") for text in PAGES.values()) / 2
    for block in BLOCKS:
        read = block.language in ("sh", "console", "python", "yaml")
        assert read or (block.page, block.heading, block.language) in TAKEN_FROM_TESTS_OF_THEIR_OWN, str(block)


@pytest.fixture
def team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, which holds every recipe file that the pages show under the name of its own command."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "team" / "recipe"
    folder.mkdir(parents=True)
    for block in of("yaml"):
        for name in re.findall(r"^# python -m optimizer --config-dir team recipe=(\w+)", block.text, re.MULTILINE):
            (folder / f"{name}.yaml").write_text(block.text)
    return tmp_path


@pytest.mark.parametrize("block", of("yaml"), ids=str)
def test_yaml_is_a_recipe_or_a_build_that_runs_one(block: Block, team: Path) -> None:
    if "jobs:" in block.text:
        steps = [step for job in yaml.safe_load(block.text)["jobs"].values() for step in job["steps"]]
        commands = [step["run"] for step in steps if "run" in step]
        assert any("python -m optimizer " in command for command in commands)
        for command in commands:
            check_line(command)
        return
    text = block.text
    if not text.startswith("# @package _global_"):  # a part of a recipe
        text = "# @package _global_\ndefaults: [narrow_int8, _self_]\n" + text
    (team / "team" / "recipe" / "shown.yaml").write_text(text)
    values = optimizer.compose("--config-dir", "team", "recipe=shown")
    if SEARCH in values:
        assert search.settings(values).ranges
    parse({key: value for key, value in values.items() if key != SEARCH})


@pytest.mark.parametrize("block", of("python"), ids=str)
def test_python_runs(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT / "scripts")
    original = tiny.save(tiny.bert(), tmp_path / "DIR")
    tiny.optimize(original, tmp_path / "outputs" / "runs" / "RUN_ID" / "artifact", {"cast": {}}, format="packed")
    found: dict[str, Any] = {}
    exec(compile(ast.parse(block.text), str(block), "exec"), found)
    assert type(found["model"]).__name__ == "BertForSequenceClassification"


@pytest.mark.parametrize("block", of("sh"), ids=str)
@pytest.mark.usefixtures("team")
def test_commands_are_commands(block: Block) -> None:
    for line in block.text.splitlines():
        check_line(line)


@pytest.mark.parametrize("block", of("console"), ids=str)
@pytest.mark.usefixtures("team")
def test_commands_with_their_output_are_commands(block: Block) -> None:
    commands = [line.removeprefix("$ ") for line in block.text.splitlines() if line.startswith("$ ")]
    assert commands
    for command in commands:
        check_line(command)


HARMLESS = ("cat", "echo")


def check_line(line: str) -> None:
    """Fail unless every command in a line of a shell composes, or is a script or a module that has its flags."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;<>")
    lexer.whitespace_split = True
    words = list(lexer)
    for command in _simple(words):
        _check(command)


def _simple(words: list[str]) -> Iterator[list[str]]:
    """The commands between `&&`, `|` and their like, without what they redirect."""
    found: list[str] = []
    for word in [*words, "&&"]:
        if re.fullmatch("[&|;]+", word):
            if found:
                yield found[: found.index(">>")] if ">>" in found else found
            found = []
        else:
            found.append(word)


def _check(command: list[str]) -> None:
    match command:
        case ["python", "-m", "optimizer", *arguments] | ["optimizer", *arguments] | ["scripts/run", *arguments]:
            assert compose(arguments), command
            compose_launcher(arguments)
        case ["python", "-m", "optimizer.report", *arguments]:
            assert all(argument.startswith("out=") for argument in arguments), command
        case ["python", "-m", module, *arguments]:
            spec = importlib.util.find_spec(module)
            assert spec, command
            assert spec.origin, command
            _check_flags(Path(spec.origin), arguments)
        case ["python", script, *arguments]:
            _check_flags(ROOT / script, arguments)
        case ["pip", "install", *arguments]:
            assert all(word == "$OPTIMIZER" or word.startswith("transformer-optimizer") for word in arguments), command
        case [script, *_] if script.startswith("scripts/"):
            assert (ROOT / script).stat().st_mode & 0o100, command
        case _:
            assert command[0] in HARMLESS, command


def _check_flags(script: Path, arguments: list[str]) -> None:
    """Fail for a flag that a script has not."""
    text = script.read_text(encoding="utf-8")
    for flag in (argument for argument in arguments if argument.startswith("--")):
        assert re.search(rf'add_argument\(\s*"{flag}"', text), (script, flag)


# what commands say of the pages


def test_every_page_that_a_text_of_the_program_names_exists() -> None:
    for folder in ("optimizer", "conf", "scripts"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix in (".py", ".yaml", ".jinja", ""):
                for page in re.findall(r"docs/\w+\.md", path.read_text(encoding="utf-8")):
                    assert page in PAGES, path


def test_help_names_the_pages_that_explain_what_it_lists(optimizer: Callable[..., tuple[int, str, str]]) -> None:
    _, out, _ = optimizer("--help")
    pages = set(re.findall(r"docs/\w+\.md", out))
    assert pages >= {f"docs/{name}.md" for name in ("command_line", "recipes", "stages", "formats", "sweeps", "search")}
    assert pages <= set(FOLDER)


@pytest.mark.parametrize(
    ("command", "page"),
    [
        ("optimizer/verify.py", "loading"),
        ("optimizer/unpack.py", "formats"),
        ("optimizer/push.py", "hub"),
        ("optimizer/diff.py", "diff"),
        ("optimizer/report/__main__.py", "sweeps"),
        ("scripts/quantization_code.py", "guide"),
        ("scripts/test_optimized_model.py", "guide"),
        ("scripts/benchmark_rows.py", "sweeps"),
        ("scripts/benchmark_size.py", "figures"),
        ("scripts/benchmark_speed.py", "figures"),
        ("scripts/benchmark_sweep.py", "sweeps"),
    ],
)
def test_help_of_the_others_names_the_page_that_explains_them(
    command: str, page: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    monkeypatch.setattr("sys.argv", [command, "--help"])
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / command), run_name="__main__")
    assert not ended.value.code
    assert f"Explained in docs/{page}.md of the project." in " ".join(capsys.readouterr().out.split())
    name = Path(command).stem if Path(command).stem != "__main__" else "optimizer.report"
    assert name in PAGES[f"docs/{page}.md"]


def test_every_setting_that_help_lists_is_in_its_table() -> None:
    config = yaml.safe_load((ROOT / "conf" / "config.yaml").read_text(encoding="utf-8"))
    settings = set(config) - {"defaults", "hydra"} | {"recipe", "stages", "search", "engine"}
    for group, kind in (("model", ModelSettings), ("data", DataSettings), ("evaluation", EvaluationSettings)):
        settings |= {f"{group}.{name}" for name in kind.model_fields}
    table = section("docs/command_line.md", "## Settings")
    rows = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`([\w.]+)", row)} >= settings


# what commands print


@pytest.mark.slow
@pytest.mark.parametrize("block", of("console"), ids=str)
def test_commands_print_what_is_shown(block: Block, optimizer: Callable[..., tuple[int, str, str]]) -> None:
    """But for numbers, which are of one machine; `…` stands for any lines."""
    first, *shown = block.text.splitlines()
    prefixes = (["$", "scripts/run"], ["$", "python", "-m", "optimizer"])
    (arguments,) = [first.split()[len(prefix) :] for prefix in prefixes if first.split()[: len(prefix)] == prefix]
    code, out, err = optimizer(*arguments)
    if shown[-2:-1] == ["$ echo $?"]:
        *shown, _, said = shown
        assert code == int(said)
    printed = [_without_numbers(line) for line in (err + out).splitlines()]
    expected = [_without_numbers(line) for line in shown]
    if "…" in expected:
        expected = expected[: expected.index("…")]
        printed = printed[: len(expected)]
    assert printed == expected


def _without_numbers(line: str) -> str:
    return " ".join(re.sub(r"[\d.]+", "0", re.sub(r"-[0-9a-f]{12}\b", "-ID", line)).split())


class Place:
    """A group of operations of a graph."""

    def __init__(self, name: str) -> None:
        self.operations = [name]


class Answers:
    """Those of a graph that agrees the better the more of it is in float again."""

    texts = range(1500)

    def of_some(self, count: int) -> "Answers":
        return self

    def divergence(self, given_back: list[Place]) -> float:
        return len(given_back[0].operations[0])

    def agreement(self, given_back: list[Place]) -> float:
        return 0.998 + 0.001 * len(given_back)


def test_the_line_of_what_int8_gives_back_is_that_of_the_log() -> None:
    shown = example("docs/formats.md", "## What int8 gives back to float", "text").strip()
    said: list[str] = []
    fewest_given_back([Place("one"), Place("three")], list, lambda graph: graph, Answers(), 0.9985, said.append)
    (line,) = said
    assert line.endswith(" in float again: one")
    assert _without_numbers(line).partition(": ")[0] == _without_numbers(shown).partition(": ")[0]
