"""Sweeps: what is done once, what is done again, what stays, and what a dying run leaves the others."""

import re
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import hostile
import pytest
import tiny
from command_line import one_line, rows
from filelock import FileLock

import optimizer
from optimizer.command import Options, execute
from optimizer.errors import RecipeError
from optimizer.launchers import Basic
from optimizer.manifest import verify
from optimizer.recipe import parse
from optimizer.rows.row import Row
from optimizer.rows.store import LOG_FILE
from optimizer.runs import run, sweep
from optimizer.runs.outlook import look_ahead
from optimizer.runs.plan import plan
from optimizer.stages import STAGES

NOTHING = {"examples": 0, "repetitions": 0}
AGREEMENT = {"repetitions": 0}
QUIET = "evaluation=none"


@pytest.fixture(autouse=True)
def hostile_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, stage in hostile.STAGES.items():
        monkeypatch.setitem(STAGES, name, stage)


@pytest.fixture
def model(tiny_model) -> str:
    return str(tiny_model("sequence-classification"))


def pruned(model: str, amount: float, **values: Any) -> dict[str, Any]:
    stages = {"prune": {"amount": amount}, "cast": {}}
    return {
        "name": "pruned",
        "model": {"path": model},
        "stages": stages,
        "evaluation": NOTHING,
        "format": "packed",
    } | values


def artifact(out: Path, row: Row) -> Path:
    assert row.artifact
    return out / row.artifact


def log_of(out: Path, run_id: str) -> str:
    return (out / "runs" / run_id / LOG_FILE).read_text()


def test_runs_that_die_or_fail_are_rows_and_the_others_go_on(optimizer, tmp_path) -> None:
    stages = ["+stages.die.amount=0,1", "+stages.fail={}", "recipe=fp16", QUIET]
    code, _, err = optimizer("-m", *stages)
    assert code == 1
    died, failed = sorted(rows(tmp_path / "outputs"), key=lambda row: row["error"], reverse=True)
    assert died["error"] == "the run's process was killed by SIGKILL; the system may be out of memory"
    assert failed["error"] == "ZeroDivisionError: division by zero"
    assert died["status"] == failed["status"] == "failed"
    assert all(row["run_id"] in err for row in (died, failed))
    assert "ZeroDivisionError" in log_of(tmp_path / "outputs", failed["run_id"])
    assert "Traceback" in log_of(tmp_path / "outputs", failed["run_id"])
    assert "Traceback" not in err
    assert not list(tmp_path.rglob("*.partial"))


def test_a_failed_run_is_done_again_and_a_finished_one_is_not(model, tmp_path, monkeypatch) -> None:
    recipes = [parse(pruned(model, 0.1)), parse(pruned(model, 0.2, stages={"die": {}}))]
    first, failed = sweep.sweep(recipes, tmp_path)
    assert (first.status, failed.status) == ("ok", "failed")
    said: list[str] = []
    again, repeated = sweep.sweep(recipes, tmp_path, say=said.append)
    assert again.created_at == first.created_at
    assert repeated.created_at > failed.created_at
    assert f"{first.run_id}: finished before: ok" in said
    (forced, _) = sweep.sweep(recipes, tmp_path, force=True)
    assert forced.created_at > first.created_at


def test_an_artifact_is_used_again_when_only_the_evaluation_changed(model, tmp_path) -> None:
    (first,) = sweep.sweep([parse(pruned(model, 0.3))], tmp_path)
    (second,) = sweep.sweep([parse(pruned(model, 0.3, evaluation=AGREEMENT))], tmp_path)
    assert second.run_id != first.run_id
    assert second.agreement is not None
    assert f"the artifact is that of {first.run_id}" in log_of(tmp_path, second.run_id)
    one, other = (artifact(tmp_path, row) / "model.safetensors" for row in (first, second))
    assert one.samefile(other)
    assert "| agreement |" in (artifact(tmp_path, second) / "README.md").read_text()
    assert "| agreement |" not in (artifact(tmp_path, first) / "README.md").read_text()
    assert verify(artifact(tmp_path, first)) == verify(artifact(tmp_path, second))
    sweep.sweep([parse(pruned(model, 0.3, evaluation=AGREEMENT))], tmp_path, force=True)
    assert not one.samefile(other)
    assert one.read_bytes() == other.read_bytes()


def test_a_damaged_artifact_is_not_used_again(model, tmp_path) -> None:
    (first,) = sweep.sweep([parse(pruned(model, 0.3))], tmp_path)
    weights = artifact(tmp_path, first) / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    (second,) = sweep.sweep([parse(pruned(model, 0.3, evaluation=AGREEMENT))], tmp_path)
    assert second.status == "ok"
    assert "is not used again" in log_of(tmp_path, second.run_id)
    assert (artifact(tmp_path, second) / "model.safetensors").read_bytes() == whole


def test_a_run_that_failed_in_measuring_keeps_its_artifact_for_the_next_try(model, tmp_path, monkeypatch) -> None:
    at = plan(parse(pruned(model, 0.3, evaluation=AGREEMENT)))
    with monkeypatch.context() as patch:
        patch.setattr(run, "evaluate", lambda job: 1 / 0)
        assert run.run(at, tmp_path).error == "ZeroDivisionError: division by zero"
    assert run.state(at, tmp_path, "all") == "to measure"
    row = run.run(at, tmp_path)
    assert row.status == "ok"
    assert f"the artifact is that of {at.run_id}" in log_of(tmp_path, row.run_id)


def test_two_at_the_same_run_do_it_once(model, tmp_path) -> None:
    note, go = tmp_path / "note", tmp_path / "go"
    waiting = {"wait": {"note": str(note), "go": str(go)}, "cast": {}}
    at = plan(parse(pruned(model, 0.3, stages=waiting)))
    found: list[Row] = []
    threads = [threading.Thread(target=lambda: found.append(run.run(at, tmp_path / "out"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 60
    while not note.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    note.unlink()  # a second one would write it again
    go.touch()
    for thread in threads:
        thread.join()
    assert not note.exists()
    assert found[0] == found[1]
    assert found[0].status == "ok"


def test_what_is_not_to_be_kept_is_removed_and_its_figures_stay(model, tmp_path) -> None:
    recipes = [parse(pruned(model, amount)) for amount in (0.1, 0.2)]
    first = sweep.sweep(recipes, tmp_path, keep="none")
    assert all(row.artifact is None and row.artifact_bytes for row in first)
    assert not list(tmp_path.glob("runs/*/artifact*"))
    assert [row["artifact"] for row in rows(tmp_path)] == ["", ""]
    again = sweep.sweep(recipes, tmp_path, keep="none")
    assert [row.created_at for row in again] == [row.created_at for row in first]
    kept = sweep.sweep(recipes, tmp_path, keep="all")  # who wants them all gets them made again
    assert all(verify(artifact(tmp_path, row)) for row in kept)


def test_only_the_front_is_kept(model, tmp_path) -> None:
    dense = pruned(model, 0.0, evaluation=AGREEMENT, stages={"prune": {"amount": 0.0}}, format="dense")
    recipes = [
        parse(dense),
        parse(dense | {"format": "packed"}),
        parse(dense | {"gates": {"size_ratio": 0.1}, "seed": 1}),
    ]
    large, small, rejected = sweep.sweep(recipes, tmp_path, keep="front")
    assert large.agreement == small.agreement == 1
    assert large.artifact is None  # no better than the packed one, and larger
    assert rejected.status == "rejected"
    assert rejected.artifact is None
    assert verify(artifact(tmp_path, small))
    shutil.rmtree(artifact(tmp_path, small))
    run.drop_artifact(tmp_path, small)
    (row,) = sweep.sweep(recipes[1:2], tmp_path, keep="front")  # the front of this command lacks it
    assert verify(artifact(tmp_path, row))


def test_the_front_needs_an_agreement(optimizer, tmp_path) -> None:
    code, _, err = optimizer("recipe=fp16", QUIET, "keep=front")
    assert code == 2
    assert "keep: 'front' needs the agreement" in one_line(err)
    code, _, err = optimizer("recipe=fp16", QUIET, "keep=some")
    assert code == 2
    assert "keep: 'some'" in one_line(err)


def test_a_plan_lists_what_is_to_do_and_does_nothing(optimizer, tmp_path, monkeypatch) -> None:
    amounts = "pruning_amount=0.1,0.2"
    assert optimizer("recipe=pruned", "pruning_amount=0.1", QUIET)[0] == 0
    before = sorted(tmp_path.rglob("*"))
    code, out, _ = optimizer("-m", "recipe=pruned", amounts, QUIET, "plan=true")
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert [line[1] for line in lines if line[0].startswith("pruned-")] == ["finished", "to"]
    assert "2 runs, 1 to do; at most " in out
    assert "nothing was done" in out
    code, out, _ = optimizer("recipe=pruned", "pruning_amount=0.1", "evaluation=quick", "plan=true")
    assert "to measure" in out
    assert sorted(tmp_path.rglob("*")) == before
    code, out, _ = optimizer("recipe=fp16", QUIET, "plan=true", "out=elsewhere/deep")
    assert code == 0
    assert not (tmp_path / "elsewhere").exists()
    code, _, err = optimizer("recipe=fp16", "plan=true", "model.path=./nowhere")
    assert code == 2
    assert "is no directory" in one_line(err)


def test_a_plan_names_what_cannot_run_and_shows_what_is_swept(optimizer, tmp_path) -> None:
    steps = ["stages.quantize.step=0.25,0.5", "stages.quantize.skip=[],['*.query.weight']"]
    words = ["-m", "recipe=compact", "model.path=demo,./nowhere", *steps, QUIET, "plan=true"]
    code, out, err = optimizer(*words, "out=a-folder-with-a-long-name")
    assert (code, err) == (1, "")
    header, *lines = out.splitlines()
    columns = re.split(r"  +", header.strip())
    assert columns[:5] == ["run", "state", "model", "stages", "format"]
    assert {"stages.quantize.step", "stages.quantize.skip"} < set(columns)
    states = [re.split(r"  +", line.strip())[:3] for line in lines[:8]]
    assert [state[1:] for state in states] == [["to do", "demo"]] * 4 + [["cannot run", "nowhere"]] * 4
    assert all(re.fullmatch(r"compact-[0-9a-f]{12}", state[0]) for state in states)
    for state, line in zip(states[4:], lines[8:12], strict=True):
        assert line.startswith(f"{state[0]}: cannot run: model.path: './nowhere' is no directory")
    assert lines[12].startswith("8 runs, 4 to do, 4 cannot run; at most ")


def test_a_sweep_that_may_not_fit_on_the_disk_is_refused(optimizer, tmp_path, monkeypatch) -> None:
    sizes = ["-m", "recipe=fp16,bf16", QUIET]
    usage = shutil.disk_usage(tmp_path)
    free = int(2 * 1.6e6)  # two artifacts of the demo in half precision need a little less
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free // 2))
    code, _, err = optimizer(*sizes)
    assert code == 2
    assert "out: 'outputs' has 1.6 MB free and these runs may need " in one_line(err)
    assert list(tmp_path.iterdir()) == []
    code, _, err = optimizer(*sizes, "model.path=demo,./nowhere", "out=deep/there")
    assert code == 2
    assert "out: 'deep/there' has 1.6 MB free" in one_line(err)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2 * free))
    assert optimizer(*sizes)[0] == 0


def test_what_does_not_fit_the_model_is_refused_before_anything_is_written(optimizer, tmp_path, model: str) -> None:
    words = [f"model.path={model}", QUIET]
    code, _, err = optimizer("recipe=baseline", "+stages.prune.pattern='5:7'", *words)
    assert code == 2
    assert "its input axis of 32 is no multiple of 7; " in one_line(err)
    code, _, err = optimizer("recipe=baseline", "+stages.quantize={bits: 4, group: 7}", *words)
    assert code == 2
    assert "its rows of 32 are no multiple of group: 7; " in one_line(err)
    assert not rows_there(tmp_path)
    grid = ["+stages.quantize.bits=4", "+stages.quantize.group=7,8"]
    code, _, err = optimizer("-m", "recipe=baseline", *grid, *words)
    assert code == 1
    assert "no multiple of group: 7; " in err
    assert sorted(row["status"] for row in rows(tmp_path / "outputs")) == ["failed", "ok"]


def test_much_pruning_brings_one_warning(model: str, tmp_path: Path) -> None:
    lines: list[str] = []
    sweep.sweep([parse(pruned(model, amount)) for amount in (0.6, 0.7)], tmp_path, say=lines.append)
    assert lines[0] == ("stages.prune: pruning above 0.5 often costs much accuracy; look at the agreement")
    assert not any("above" in line for line in lines[1:])


def rows_there(folder: Path) -> list[Path]:
    return list(folder.glob("outputs/runs/*/row.json"))


@pytest.mark.parametrize("recipe", ["baseline", "fp16", "pruned", "int8", "nf4", "balanced", "compact", "packed_fp16"])
def test_an_estimate_is_no_smaller_than_the_artifact_and_not_much_larger(tmp_path, recipe: str) -> None:
    composed = parse(optimizer.compose(f"recipe={recipe}", QUIET))
    (outlook,) = look_ahead([composed], tmp_path)
    (row,) = sweep.sweep([composed], tmp_path)
    made = sum(path.stat().st_size for path in artifact(tmp_path, row).rglob("*"))
    assert made <= outlook.bytes <= 1.8 * made


def test_an_estimate_counts_the_plain_state_dict(tmp_path) -> None:
    values = {"stages": {"cast": {}}, "evaluation": NOTHING}
    plain, with_pt = look_ahead([parse(values), parse(values | {"also_pt": True})], tmp_path)
    assert with_pt.bytes - plain.bytes == pytest.approx(3.03e6 * 1.1, rel=0.02)


def test_a_search_is_a_command_with_rows_a_page_and_only_its_front(optimizer, tmp_path) -> None:
    pytest.importorskip("optuna")
    words = [
        "recipe=smallest_steps",
        "search.trials=3",
        "data.limit=40",
        "evaluation.repetitions=0",
        "gates.agreement=0.5",
    ]
    code, out, err = optimizer(*words, "keep=front")
    assert code == 0, err
    found = rows(tmp_path / "outputs")
    assert len(found) == 3
    kept = [row["run_id"] for row in found if row["artifact"]]
    assert sorted(path.parent.name for path in tmp_path.rglob("artifact")) == sorted(kept)
    assert all(f"front: {name}" in err for name in kept)
    assert "search: best of 3 trials" in err
    assert "page: outputs/report.html" in out
    code, _, err = optimizer(*words, "keep=front")
    assert "3 of 3 trials are there already" in err
    assert [row["created_at"] for row in rows(tmp_path / "outputs")] == [row["created_at"] for row in found]
    code, _, err = optimizer(*(word for word in words if word != "search.trials=3"), "~search", "keep=none")
    assert code == 0, err
    assert err.count("finished before: ok") == len(err.splitlines()) == 1
    code, out, _ = optimizer("-m", "recipe=smallest_steps,fp16", "plan=true")
    assert code == 0
    assert "smallest_steps: a search of 20 trials" in out
    assert "1 run, 1 to do; at most " in out
    assert optimizer(*words, "gates.size_ratio=0.01", "out=none")[0] == 1


def test_a_sweep_may_hold_a_search(tmp_path, capsys) -> None:
    pytest.importorskip("optuna")
    words = ["evaluation=none", f"model.path={tiny.save(tiny.bert(), tmp_path / 'model')}"]
    ordinary = optimizer.compose("recipe=fp16", *words)
    search = optimizer.compose("recipe=smallest_steps", "search.trials=2", "~gates.agreement", *words)
    options = Options(out=str(tmp_path / "out"))
    assert execute([search, ordinary], options, Basic()) == 0
    assert [row["recipe"] for row in rows(tmp_path / "out")] == ["fp16", "smallest_steps", "smallest_steps"]
    assert "report.html" in capsys.readouterr().out


def test_a_sweep_of_nothing_is_nothing(tmp_path) -> None:
    assert sweep.sweep([], tmp_path) == []


def test_a_folder_in_the_models_own_is_refused(optimizer, tmp_path) -> None:
    tiny.save(tiny.bert(), tmp_path)
    before = sorted(tmp_path.rglob("*"))
    for words in (["recipe=fp16"], ["recipe=smallest_steps", "~gates.agreement"]):
        code, _, err = optimizer(*words, "model.path=.", QUIET)
        assert code == 2
        assert "out: 'outputs' lies in the model's own folder" in one_line(err)
        assert sorted(tmp_path.rglob("*")) == before


def test_the_order_of_the_stages_is_a_run_of_its_own(model, tmp_path) -> None:
    stages: dict[str, Any] = {"prune": {"amount": 0.3}, "threshold": {"value": 0.1}}
    recipes = [pruned(model, 0.3, stages=stages), pruned(model, 0.3, stages=dict(reversed(stages.items())))]
    first, second = sweep.sweep([parse(recipe) for recipe in recipes], tmp_path)
    assert first.run_id != second.run_id
    assert (first.stages, second.stages) == ("prune threshold", "threshold prune")


def test_an_original_that_changes_meanwhile_is_a_failed_row(tiny_model, tmp_path) -> None:
    original = tiny_model("sequence-classification", tmp_path / "model")
    at = plan(parse(pruned(str(original), 0.3)))
    tiny_model("sequence-classification", original, initializer_range=0.7)
    row = run.run(at, tmp_path / "out")
    assert row.status == "failed"
    assert "has changed since the command began" in (row.error or "")
    assert not list((tmp_path / "out").rglob("artifact"))


def test_originals_of_one_name_have_fronts_of_their_own(tiny_model, tmp_path) -> None:
    models = [
        tiny_model("sequence-classification", tmp_path / name / "model", initializer_range=width)
        for name, width in (("a", 0.5), ("b", 0.6))
    ]
    recipes = [parse(pruned(str(model), 0.0, evaluation=AGREEMENT)) for model in models]
    found = sweep.sweep(recipes, tmp_path / "out", keep="front")
    assert all(verify(artifact(tmp_path / "out", row)) for row in found)


def test_what_is_not_to_be_kept_goes_even_if_nothing_is_left_to_do(model, tmp_path) -> None:
    recipes = [parse(pruned(model, amount)) for amount in (0.1, 0.2)]
    sweep.sweep(recipes, tmp_path)
    assert {row.artifact for row in sweep.sweep(recipes, tmp_path, keep="none")} == {None}
    assert not list(tmp_path.glob("runs/*/artifact*"))


def test_a_run_that_another_process_holds_is_not_waited_for_in_planning(model, tmp_path) -> None:
    (first,) = sweep.sweep([parse(pruned(model, 0.1))], tmp_path)
    at = plan(parse(pruned(model, 0.1)))
    with FileLock(tmp_path / "runs" / first.run_id / ".lock"):
        assert run.stored(at, tmp_path, "all") is None
    assert run.stored(at, tmp_path, "all") == first


def test_a_row_that_cannot_be_stored_does_not_stop_the_others(model, tmp_path) -> None:
    recipes = [parse(pruned(model, amount)) for amount in (0.1, 0.2)]
    blocked = tmp_path / "runs" / plan(recipes[0]).run_id
    blocked.parent.mkdir(parents=True)
    blocked.touch()
    first, second = sweep.sweep(recipes, tmp_path)
    assert first.status == "failed"
    assert "cannot be written" in first.error
    assert second.status == "ok"


def test_a_failure_to_plan_is_forgotten_once_it_can_be_planned(tiny_model, tmp_path) -> None:
    there = str(tiny_model("sequence-classification", tmp_path / "a"))
    late = tmp_path / "b"
    recipes = [parse(pruned(path, 0.1)) for path in (there, str(late))]
    assert [row.status for row in sweep.sweep(recipes, tmp_path / "out")] == ["ok", "failed"]
    tiny_model("sequence-classification", late, initializer_range=0.6)
    assert [row.status for row in sweep.sweep(recipes, tmp_path / "out")] == ["ok", "ok"]
    assert [row["status"] for row in rows(tmp_path / "out")] == ["ok", "ok"]


def test_no_good_recipe_is_the_first_error(tmp_path) -> None:
    with pytest.raises(RecipeError, match="matches no weight"):
        sweep.sweep([parse({"stages": {"cast": {"only": ["nothing"]}}})], tmp_path)
