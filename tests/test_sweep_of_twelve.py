"""A sweep of twelve: one run raises, one is killed, one is interrupted with the whole sweep; then it is resumed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from command_line import rows

TESTS = Path(__file__).parent
SHARED = TESTS.parent.parent / "shared"
RAISES, DIES, WAITS = "r03", "r07", "r09"
NAMES = [f"r{number:02}" for number in range(1, 13)]

pytestmark = pytest.mark.slow


@pytest.fixture(params=["demo", "bert-intents"])
def data(request: pytest.FixtureRequest) -> list[str]:
    if request.param == "demo":
        return ["evaluation=none"]
    if not (SHARED / "models" / "bert-intents").is_dir():
        pytest.skip("the shared models are not on this machine")
    model, texts = SHARED / "models" / "bert-intents", SHARED / "data" / "bert-intents-test.jsonl"
    return [f"model.path={model}", f"data.path={texts}", "data.limit=500", "evaluation.repetitions=2"]


def write_recipes(folder: Path) -> None:
    (folder / "team" / "recipe").mkdir(parents=True)
    hostile = {
        RAISES: "  fail: {}\n",
        DIES: "  die: {}\n",
        WAITS: f"  wait: {{note: '{folder}/note', go: '{folder}/go'}}\n",
    }
    for number, name in enumerate(NAMES, start=1):
        stages = f"  prune: {{amount: {number / 20}}}\n  cast: {{}}\n" + hostile.get(name, "")
        (folder / "team" / "recipe" / f"{name}.yaml").write_text(
            f"# @package _global_\nformat: packed\nstages:\n{stages}"
        )


def start(folder: Path, data: list[str]) -> "subprocess.Popen[str]":
    arguments = [TESTS / "with_hostile_stages.py", "-m", "--config-dir", folder / "team", "recipe=glob(r*)", *data]
    return subprocess.Popen(
        [sys.executable, *map(str, arguments), f"out={folder / 'out'}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_every_run_has_its_row_and_the_second_start_does_only_what_is_missing(tmp_path: Path, data: list[str]) -> None:
    write_recipes(tmp_path)
    first = start(tmp_path, data)
    deadline = time.monotonic() + 300
    while not (tmp_path / "note").exists():
        assert time.monotonic() < deadline
        assert first.poll() is None, first.communicate()
        time.sleep(0.05)
    family = psutil.Process(first.pid).children(recursive=True)
    assert int((tmp_path / "note").read_text()) in {process.pid for process in family}
    os.killpg(first.pid, signal.SIGINT)  # as a terminal does
    _, err = first.communicate(timeout=60)
    assert first.returncode == 130
    assert "interrupted; run the same command again to go on" in err
    assert "Traceback" not in err
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive

    before = {row["recipe"]: row for row in rows(tmp_path / "out")}
    assert sorted(before) == NAMES[: NAMES.index(WAITS)]
    assert {name for name, row in before.items() if row["status"] == "failed"} == {RAISES, DIES}
    assert before[RAISES]["error"] == "ZeroDivisionError: division by zero"
    assert "was killed by SIGKILL" in before[DIES]["error"]
    assert not list(tmp_path.rglob("*.partial"))

    (tmp_path / "go").touch()
    second = start(tmp_path, data)
    out, err = second.communicate(timeout=300)
    assert second.returncode == 1, err
    after = {row["recipe"]: row for row in rows(tmp_path / "out")}
    assert sorted(after) == NAMES
    assert {name for name, row in after.items() if row["status"] == "failed"} == {RAISES, DIES}
    redone = {name for name in before if after[name]["created_at"] != before[name]["created_at"]}
    assert redone == {RAISES, DIES}
    assert err.count("finished before") == len(before) - 2
    assert all(after[name]["run_id"] in out for name in NAMES)
    assert (tmp_path / "out" / "report.html").exists()
