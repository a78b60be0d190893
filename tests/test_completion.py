"""Completion in a shell: Hydra's own, for the console script, tried in a real bash."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import one_line
from documents import ROOT, section

PLACE = Path(sys.executable).parent
ENVIRONMENT = os.environ | {"PATH": f"{PLACE}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
# What bash itself does when somebody has typed a line and presses the tabulator.
PRESS = """
COMP_LINE=$TYPED COMP_POINT=${#TYPED} COMP_WORDS=($TYPED) COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
$(complete -p optimizer | sed 's/.* -F \\([^ ]*\\) .*/\\1/')
printf '%s\\n' "${COMPREPLY[@]}"
"""


def run(place: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """A command in a folder."""
    return subprocess.run(command, cwd=place, env=ENVIRONMENT, capture_output=True, text=True, check=False)


@pytest.fixture
def team(tmp_path: Path) -> Path:
    """A folder in which a team has a recipe of its own."""
    (tmp_path / "team" / "recipe").mkdir(parents=True)
    (tmp_path / "team" / "recipe" / "support.yaml").write_text("# @package _global_\ndefaults: [balanced, _self_]\n")
    return tmp_path


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("optimizer rec", "recipe="),
        ("optimizer recipe=ba", "recipe=balanced recipe=baseline"),
        ("optimizer recipe=balanced stages.p", "stages.prune."),
        ("optimizer -m recipe=pruned stages.prune.am", "stages.prune.amount="),
        ("optimizer recipe=fp16 evaluation=q", "evaluation=quick"),
        ("optimizer --config-dir team recipe=sup", "recipe=support recipe=support_desk"),
        ("optimizer --config-dir nowhere recipe=sup", "recipe=support_desk"),
        ("optimizer model.path=./te", "model.path=./team"),
        ("optimizer recipe=nosuch gat", ""),
    ],
)
def test_bash_completes_what_is_typed(team: Path, typed: str, offered: str) -> None:
    (line,) = [code for code in section("docs/command_line.md", "## Completion").split("`") if code.startswith("eval")]
    done = run(team, "bash", "-c", f"{line}\nTYPED='{typed}'\n{PRESS}")
    assert (sorted(done.stdout.split()), done.stderr, done.returncode) == (offered.split(), "", 0)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_it_prints_the_script_of_a_shell(tmp_path: Path, shell: str) -> None:
    done = run(tmp_path, str(PLACE / "optimizer"), "-sc", f"install={shell}")
    assert (done.stderr, done.returncode) == ("", 0)
    assert "-sc query=" in done.stdout
    assert "complete " in done.stdout


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (
            [sys.executable, "-m", "optimizer", "-sc", "install=bash"],
            "optimizer: --shell-completion: is for the console script alone; write optimizer -sc install=bash\n",
        ),
        (
            [str(PLACE / "optimizer"), "-sc", "install=bsh"],
            "optimizer: No completion plugin for 'bsh' found, available : bash fish zsh\n",
        ),
    ],
    ids=["module", "shell"],
)
def test_what_it_is_not_for_is_one_line(tmp_path: Path, command: list[str], line: str) -> None:
    done = run(tmp_path, *command)
    assert (done.stdout, one_line(done.stderr), done.returncode) == ("", line, 2)
