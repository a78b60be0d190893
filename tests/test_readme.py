"""What README, CONTRIBUTING and docs/ say of the code: examples run, and the names in them are those of the code."""

import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import tiny
import torch
from command_line import rows
from documents import ALL, PAGES, ROOT, example, named, section

import optimizer
from optimizer import compose, loading, search
from optimizer.errors import RecipeError
from optimizer.formats import FORMATS, format_of
from optimizer.launchers import LAUNCHERS
from optimizer.model.weight import ROLES
from optimizer.recipe import parse
from optimizer.rows.gates import Gates
from optimizer.rows.row import COLUMNS
from optimizer.stages import STAGES

RECIPES = sorted(path.stem for path in (ROOT / "conf" / "recipe").glob("*.yaml"))
A_RECIPE = ("README.md", "## A recipe, line by line")
A_STAGE = ("CONTRIBUTING.md", "## A stage")
A_FORMAT = ("CONTRIBUTING.md", "## A format")


def composed(page: str, heading: str, name: str, command: str) -> dict[str, Any]:
    """What the recipe below a heading composes to, in the working folder, by the command that `command` finds there."""
    folder = Path("team", "recipe")
    folder.mkdir(parents=True)
    (folder / f"{name}.yaml").write_text(example(page, heading, "yaml"))
    (arguments,) = re.findall(command, section(page, heading))
    return compose(*arguments.split())


def imported(place: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of the package that is in a file elsewhere."""
    spec = importlib.util.spec_from_file_location(name, place)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of the stage that CONTRIBUTING writes, named in the table of stages."""
    file = tmp_path / "round.py"
    file.write_text(example(*A_STAGE, "python"), encoding="utf-8")
    module = imported(file, "optimizer.stages.round", monkeypatch)
    monkeypatch.setitem(STAGES, module.Round.kind, module.Round)
    return module


@pytest.mark.usefixtures("stage")
def test_the_stage_that_is_written_is_a_stage(tmp_path: Path) -> None:
    original = tiny.save(tiny.bert(), tmp_path / "original")
    before = tiny.values(tiny.staged(original, {}))
    after = tiny.values(tiny.staged(original, {"round": {"step": 0.25, "skip": ["*.query.weight"]}}))
    assert after.keys() == before.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {
        name for name in before if re.search(r"(key|value|dense|classifier)\.weight$", name) and "LayerNorm" not in name
    }
    for name in changed:
        assert torch.equal(after[name], (before[name] * 4).round() / 4)


@pytest.mark.usefixtures("stage")
def test_the_stage_that_is_written_leaves_an_artifact_and_has_its_errors(tmp_path: Path) -> None:
    original = tiny.save(tiny.bert(), tmp_path / "original")
    tiny.optimize(original, tmp_path / "artifact", {"round": {"step": 0.25}, "cast": {}}, format="packed")
    with pytest.raises(RecipeError, match=r"stages\.round\.step: 0: input should be greater than 0"):
        parse({"stages": {"round": {"step": 0}}})
    with pytest.raises(RecipeError, match=r"stages\.round: unknown key 'stp'; did you mean 'stages\.round\.step'\?"):
        parse({"stages": {"round": {"stp": 1}}})
    with pytest.raises(RecipeError, match="round cannot follow quantize, which leaves integer codes"):
        parse({"stages": {"quantize": {"step": 0.25}, "round": {"step": 1}}})


@pytest.mark.usefixtures("stage")
def test_the_stage_that_is_written_is_added_on_the_command_line_as_it_says() -> None:
    (word,) = re.findall(r"`(\+stages\.round[^`]*)`", section(*A_STAGE))
    recipe = parse(compose("recipe=fp16", word, "stages.round.skip=['*.query.weight']"))
    assert [step.label for step in recipe.steps] == ["cast", "round"]
    assert recipe.steps[1].stage.model_dump() == {"step": 0.01}
    assert recipe.steps[1].routing.skip == ["*.query.weight"]


def test_the_format_that_is_written_is_a_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "brief.py").write_text(example(*A_FORMAT, "python"), encoding="utf-8")
    module = imported(tmp_path / "brief.py", "optimizer.formats.brief", monkeypatch)
    monkeypatch.setitem(FORMATS, "brief", module.Brief())
    monkeypatch.setitem(loading._LOADERS, "brief", loading.dense.load)
    original = tiny.save(tiny.bert(), tmp_path / "original")
    artifact = tmp_path / "artifact"
    tiny.optimize(original, artifact, {"prune": {"amount": 0.5}}, format="brief")
    assert format_of(artifact) is FORMATS["brief"]
    size, sparse = (FORMATS["brief"].stored(artifact, {"classifier.weight"}), 0.5)
    assert size.zeros / size.values == pytest.approx(sparse, abs=0.01)
    assert size.bytes < 0.6 * (original / "model.safetensors").stat().st_size
    expected = tiny.values(tiny.staged(original, {"prune": {"amount": 0.5}}))
    for name, value in optimizer.load(artifact).state_dict().items():
        if value.is_floating_point():
            assert torch.equal(value.bfloat16(), expected[name].bfloat16()), name


def test_the_recipe_of_the_readme_is_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = parse(composed(*A_RECIPE, "support", r"`python -m optimizer (--config-dir team [^`]*)`"))
    assert recipe.name == "support"
    assert recipe.model.path == "models/support"
    assert (recipe.data.path, recipe.data.text, recipe.data.label) == ("data/held_out.jsonl", "message", "intent")
    assert [step.label for step in recipe.steps] == ["prune", "threshold", "quantize", "bitsandbytes", "cast"]
    assert recipe.steps[0].stage.model_dump()["amount"] == 0.2
    assert recipe.steps[0].routing.skip == ["*.pooler.*"]
    assert recipe.gates == Gates(agreement_low=0.97, size_ratio=0.6)


def test_the_search_that_is_shown_is_a_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("optuna")
    monkeypatch.chdir(tmp_path)
    found = search.settings(
        composed(
            "docs/search.md",
            "## A recipe that searches",
            "small_support",
            r"# python -m optimizer (--config-dir team .*)",
        )
    )
    assert (found.minimize, found.trials) == ("size_ratio", 20)
    assert set(found.ranges) == {"stages.quantize.step", "stages.quantize.dead_zone"}


def test_the_notebook_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(example("README.md", "## From Python", "python"), found)
    assert found["rows"]["pruning_amount"].tolist() == [0.2, 0.4]
    assert len(rows(tmp_path / "outputs")) == 3


def test_a_run_leaves_what_it_says(optimizer: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    tree = example("docs/command_line.md", "## What a run leaves", "text")
    told = [line.partition("   ")[0] if not line.startswith(" ") else line.split()[0] for line in tree.splitlines()]
    above = [name.strip() for line in told[:4] for name in line.split(",")]
    within = [line.removeprefix("runs/<run id>/").split()[0] for line in told[4:]]
    assert within == ["row.json", "recipe.yaml", "run.log", "changed.jsonl", "artifact/"]
    model = tiny.save(tiny.bert(), tmp_path / "model")
    sweep = ["-m", "recipe=pruned", f"model.path={model}", "pruning_amount=0.2,0.4", "data.limit=8"]
    assert optimizer(*sweep, "evaluation=quick", "evaluation.repetitions=1")[0] == 0
    out = tmp_path / "outputs"
    assert {path.name for path in out.iterdir() if path.name[0] != "."} == {name.strip("/") for name in above} | {
        "runs"
    }
    for run in (out / "runs").iterdir():
        assert {path.name for path in run.iterdir() if path.name[0] != "."} == {name.strip("/") for name in within}


def test_every_launcher_is_in_its_table() -> None:
    table = set(re.findall(r"^\| `hydra/launcher=(\w+)`", section("docs/sweeps.md", "## Spread them"), re.MULTILINE))
    assert table | {"basic"} == set(LAUNCHERS)
    assert {path.stem for path in (ROOT / "conf" / "hydra" / "launcher").iterdir()} == table


def test_stages_are_changed_added_and_removed_as_it_says(
    optimizer: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    text = section("docs/recipes.md", "## From the command line")
    words = re.search(r"`(stages\.prune\.amount=[^`]*)`,\s+`(\+stages\.again=[^`]*)`,\s+`(~stages\.prune)`", text)
    assert words
    tiny.save(tiny.bert(), tmp_path / "model")
    change, add, remove = (word.replace("'", "") for word in words.groups())
    for word in (change, remove):
        code, _, err = optimizer("recipe=pruned", "model.path=./model", "evaluation=none", word)
        assert code == 0, err
    stages = [(row["stages"], row["pruning_amount"]) for row in rows(tmp_path / "outputs")]
    assert stages == [("prune cast", "0.5"), ("cast", "")]
    added = parse(compose("model.path=./model", add))  # to the default recipe
    assert [step.label for step in added.steps] == ["again", "embeddings", "quantize", "cast"]


def test_every_recipe_is_in_its_table() -> None:
    table = re.search(r"^\| recipe \| stages \|\n(.*?)\n\n", PAGES["docs/recipes.md"], re.MULTILINE | re.DOTALL)
    assert table
    assert set(RECIPES) == {name for line in table[1].splitlines() for name in named(line.split("|")[1])}


def test_every_stage_is_in_its_table_with_every_setting() -> None:
    for kind, stage in STAGES.items():
        (line,) = re.findall(rf"^\| `{kind}` \|.*$", PAGES["docs/stages.md"], re.MULTILINE)
        assert set(stage.model_fields) <= named(line), kind


def test_every_format_is_in_its_table() -> None:
    table = section("docs/formats.md", "## Which there are")
    assert set(FORMATS) == {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in named(row)}


@pytest.mark.parametrize("name", [*ROLES, "only", "skip", "roles", "before", "after", "optional"])
def test_roles_and_routing_are_named(name: str) -> None:
    assert name in named(PAGES["docs/stages.md"])


def test_every_gate_is_named() -> None:
    assert set(Gates.model_fields) <= named(section("docs/recipes.md", "## Gates"))


@pytest.mark.parametrize(
    "word",
    [
        "the guide",
        "knob",
        "quick",
        "full",
        "evaluation.length",
        "order-0 entropy",
        "byte planes",
        "dead zone",
        "+",
        "++",
    ],
)
def test_its_own_words_are_explained(word: str) -> None:
    explained = [line.split("|")[1] for line in PAGES["docs/words.md"].splitlines() if line.startswith("| ")]
    assert any(word in [each.strip(" `") for each in cell.split(",")] for cell in explained)


def test_the_rows_table_has_every_column_and_no_other() -> None:
    table = [line.split("|")[1] for line in PAGES["docs/row.md"].splitlines() if line.startswith("| `")]
    assert {name for cell in table for name in named(cell)} == set(COLUMNS)


def test_every_module_and_file_that_they_name_exists() -> None:
    modules = set(re.findall(r"python -m ([\w.]*\w)", ALL))
    assert "optimizer.unpack" in modules
    for module in modules:
        assert importlib.util.find_spec(module), module
    paths = set(re.findall(r"\b((?:scripts|conf|optimizer|tests)/[\w/.]*\w)", ALL))
    paths -= {"optimizer/stages/round.py", "optimizer/formats/brief.py"}
    assert "scripts/quantization_code.py" in paths
    for path in paths:
        assert (ROOT / path).exists(), path


def test_the_map_names_every_module() -> None:
    text = section("README.md", "## The map of the code")
    modules = [path for path in (ROOT / "optimizer").rglob("*.py") if path.name != "__init__.py"]
    assert modules
    for path in modules:
        folder = path.parent.relative_to(ROOT / "optimizer").as_posix()
        part = text if folder == "." else text.partition(f"\n  {folder}/ ")[2].partition("/  ")[0]
        if path.stem not in {*STAGES, *FORMATS, "__main__"}:  # those have a file each
            assert re.search(rf"\b{path.stem}\b", part), path


def test_every_flag_of_the_guide_is_in_its_table() -> None:
    found = set(re.findall(r"`(--[\w-]+)`", "".join(re.findall(r"^\| (.*?) \|", PAGES["docs/guide.md"], re.MULTILINE))))
    script = (ROOT / "scripts" / "quantization_code.py").read_text()
    flags = set(re.findall(r'add_argument\("(--\w+)"', script))
    switches = set(re.findall(r'add_argument\("--(\w+)", action=flag', script))
    assert switches
    # `--format` is shown with each of its values.
    assert found | {"--format"} == flags | {f"--no-{name}" for name in switches}
