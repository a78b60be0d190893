"""The command line, as a user meets it."""

import importlib.util
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import one_line, rows

from optimizer import __main__ as command
from optimizer.rows.row import COLUMNS

ROOT = Path(__file__).parent.parent
RECIPES = sorted(path.stem for path in (ROOT / "conf" / "recipe").glob("*.yaml"))


def test_version_and_help(optimizer):
    assert optimizer("--version") == (0, f"optimizer 0.1.0 ({ROOT / 'optimizer'})\n", "")
    code, out, _ = optimizer("--help")
    assert code == 0
    assert "recipe: aggressive, balanced" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["recipe=nope"], "recipe: no recipe is called 'nope'; known: aggressive, balanced, baseline, "),
        (["recipe=balansed"], "recipe: no recipe is called 'balansed'; did you mean 'balanced'?"),
        (["recpie=fp16"], "recipe: unknown key 'recpie'; did you mean 'recipe'?"),
        (["recipe=balanced", "stages.prune.amout=0.2"], "did you mean 'stages.prune.amount'?"),
        (
            ["recipe=balanced", "stages.prun.amount=0.2"],
            "'balanced' has no such stage; did you mean 'stages.prune'?",
        ),
        (["recipe=fp16", "stages.prune.amount=0.2"], "stages.prune: the recipe 'fp16' has no such stage; known: cast"),
        (["recipe=fp16", "stages.prune.pattern='2:4'"], "a new one takes a plus: +stages.prune=..."),
        (["-m", "recipe=pruned,fp16", "stages.prune.amount=0.2"], "stages.prune: the recipe 'fp16' has no such stage"),
        (["recipe=fp16", "search.trials=2"], "search.trials: the recipe 'fp16' has no search; leave it out"),
        (["gates.agrement=0.9"], "gates: unknown key 'agrement'; did you mean 'gates.agreement'?"),
        (["evalution=none"], "recipe: unknown key 'evalution'; did you mean 'evaluation'?"),
        (["plna=true"], "recipe: unknown key 'plna'; did you mean 'plan'?"),
        (
            ["recipe=balanced", "+stages.prune.amont=0.2"],
            "unknown key 'amont'; did you mean 'stages.prune.amount'?",
        ),
        (["+formt=dense"], "unknown key 'formt'; did you mean 'format'?"),
        (["+gates.agrement=1"], "gates: unknown key 'agrement'; did you mean 'gates.agreement'?"),
        (["recipe=balanced", "pruning_amount=2"], "stages.prune.amount: 2: input should be less than or equal to 0.99"),
        (["recipe=balanced", "pruning_amount=many"], "stages.prune.amount: 'many'"),
        (["recipe=fp16", "pruning_amount=0.2"], "pruning_amount: the recipe 'fp16' does not use it"),
        (["-m", "recipe=fp16", "pruning_amount=0.2,0.3"], "pruning_amount: the recipe 'fp16' does not use it"),
        (["-m", "recipe=fp16,bf16", "threshold=1,2"], "threshold: none of these recipes uses it; leave it out"),
        (["recipe=balanced", "+stages.late={stage: prune, amount: 0.2}"], "prune cannot follow bitsandbytes"),
        (["recipe=balanced", "format=dense", "stages.cast.compute=float32"], "write compute: stored"),
        (["recipe=pruned", "+stages.prune.only=['*nothing*']"], "'*nothing*' matches no weight"),
        (["model=local"], "write model.path=VALUE"),
        (["model.path=./nowhere"], "model.path: './nowhere' is no directory"),
        (["data.path=nowhere.jsonl"], "nowhere.jsonl"),
        (["gates.speedup=1", "evaluation=none"], "gates.speedup: this evaluation does not measure it"),
        (["out=/proc/nowhere"], "out: '/proc/nowhere' cannot be written"),
        (["device=cuda:7"], "device: 'cuda:7' is not there; write device=cpu"),
        (["-m", "recipe=balanced", "pruning_amount=0.2,2"], "stages.prune.amount: 2"),
        (["--config-dir", "nowhere"], "--config-dir: 'nowhere' is no directory"),
        (["hydra=3"], "Config group override"),
        (["nonsense"], "'nonsense' is no setting; write KEY=VALUE"),
        (["model.path=täam"], "model.path: 'täam' cannot be read; write model.path='...' in quotes"),
        (["model.path=${nope}"], "model.path: Interpolation key 'nope' not found"),
    ],
)
def test_a_wrong_command_is_one_line_and_leaves_nothing(optimizer, tmp_path, arguments, said):
    code, out, err = optimizer(*arguments)
    assert code == 2
    assert out == ""
    assert said in one_line(err)
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["optimizer", "recipe=nope", "debug=true"])
    with pytest.raises(command.OptimizerError):
        command.main()


CONVERTED = (
    "best",
    "fastest",
    "int8_onnx",
    "int8_openvino",
    "narrow_int8",
)  # a graph takes its time; compact_int8 stands for them
SHIPPED = [pytest.param(name, marks=pytest.mark.slow) if name in CONVERTED else name for name in RECIPES]


@pytest.mark.parametrize("recipe", SHIPPED)
def test_every_shipped_recipe_runs(optimizer, tmp_path, recipe):
    code, _, err = optimizer(f"recipe={recipe}", "evaluation=none", *_unmeasured(recipe))
    assert code == 0, err
    (row,) = rows(tmp_path / "outputs")
    assert row["status"] == "ok"
    assert tuple(row) == COLUMNS
    assert row["agreement"] == row["latency_ms_p50"] == row["data"] == ""
    assert 0 < float(row["size_ratio"]) <= 1
    text = (ROOT / "conf" / "recipe" / f"{recipe}.yaml").read_text().splitlines()
    assert text[1].startswith("# ")
    assert text[2].startswith(f"# python -m optimizer recipe={recipe}")


def _unmeasured(recipe: str) -> list[str]:
    """What a recipe must leave out when nothing is measured."""
    match recipe:
        case "smallest_steps":
            return ["~gates.agreement", "search.trials=1"]
        case "best" | "fastest" | "smallest":
            return ["~gates.agreement", "~search"]
        case "support_desk":
            return ["~gates.agreement"]
    return []


def test_a_missing_engine_is_one_line_with_its_extra_and_a_recipe_that_needs_none(optimizer, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "openvino" else find(name))
    code, out, err = optimizer()
    assert (code, out) == (2, "")
    assert "format: needs the package openvino; run: pip install 'transformer-optimizer[openvino]'" in one_line(err)
    assert "recipe=compact" in err
    assert not list(tmp_path.rglob("*.*"))
    assert optimizer("recipe=compact", "evaluation=none")[0] == 0


@pytest.mark.slow
def test_without_a_word_the_demo_becomes_smaller_and_faster_and_answers_the_same(optimizer, tmp_path):
    code, out, err = optimizer()
    assert code == 0, err
    assert "slower" not in out
    (row,) = rows(tmp_path / "outputs")
    assert (row["recipe"], row["model"], row["format"]) == ("compact_int8", "demo", "packed_openvino")
    assert float(row["size_ratio"]) < 0.2
    assert float(row["agreement"]) > 0.99
    assert float(row["speedup_low"]) > 1
    assert err.splitlines() == [f"{row['run_id']}: compact_int8 on demo"]


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "sought"), [("best", "size_ratio"), ("fastest", "speedup_low")])
def test_a_search_over_what_an_engine_runs_ends_with_its_best(optimizer, tmp_path, tiny_model, recipe, sought):
    draw = random.Random(0)
    lines = {" ".join(draw.choices(["the", "cat", "dog", "sees", "red", "big", "now"], k=9)) for _ in range(120)}
    (tmp_path / "texts.txt").write_text("\n".join(sorted(lines)))
    words = [f"recipe={recipe}", f"model.path={tiny_model('sequence-classification')}", "data.path=texts.txt"]
    code, _, err = optimizer(*words, "++search.trials=2", "gates.agreement=0.5", "evaluation.repetitions=2")
    assert code == 0, err
    found = sorted(float(row[sought]) for row in rows(tmp_path / "outputs"))
    assert len(found) == 2
    (best,) = [line for line in err.splitlines() if line.startswith("search: best of 2 trials")]
    assert f"{sought} {found[0] if recipe == 'best' else found[-1]:.6g}" in best


@pytest.mark.slow
def test_an_engine_precision_that_is_too_coarse_fails_the_command(optimizer, tmp_path):
    coarse = ["recipe=int8_openvino", "engine.precision=int4_weights", "gates.agreement=0.999"]
    code, out, err = optimizer(*coarse, "evaluation.repetitions=0")
    assert code == 1
    assert "misses the gate 0.999" in err
    (row,) = rows(tmp_path / "outputs")
    assert row["status"] == "rejected"
    assert row["run_id"] in out


def test_a_sweep_runs_every_combination_once_and_says_so(optimizer, tmp_path):
    code, out, err = optimizer("-m", "recipe=pruned,fp16", "pruning_amount=0.2,0.4", "evaluation=none", "out=here")
    assert code == 0
    (same,) = re.findall(r"^(.*): 2 combinations come to this run, which is run once$", err, re.MULTILINE)
    assert same.startswith("fp16-")
    found = rows(tmp_path / "here")
    assert sorted((row["recipe"], row["pruning_amount"]) for row in found) == [
        ("fp16", ""),
        ("pruned", "0.2"),
        ("pruned", "0.4"),
    ]
    assert all(run["run_id"] in out for run in found)


def test_the_same_run_again_is_reused_and_judged_afresh(optimizer, tmp_path):
    assert optimizer("recipe=fp16", "evaluation=none")[0] == 0
    (before,) = rows(tmp_path / "outputs")
    code, _, err = optimizer("recipe=fp16", "evaluation=none", "gates.size_ratio=0.1")
    assert code == 1
    assert "size_ratio 0.50" in err
    (after,) = rows(tmp_path / "outputs")
    assert after["status"] == "rejected"
    assert after["created_at"] == before["created_at"]
    assert optimizer("recipe=fp16", "evaluation=none", "force=true")[0] == 0
    (redone,) = rows(tmp_path / "outputs")
    assert redone["created_at"] > before["created_at"]


def test_a_damaged_artifact_is_made_again_and_told_once(optimizer, tmp_path):
    assert optimizer("recipe=fp16", "evaluation=none")[0] == 0
    (row,) = rows(tmp_path / "outputs")
    weights = tmp_path / "outputs" / row["artifact"] / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    code, out, _ = optimizer("recipe=fp16", "evaluation=none", "plan=true")
    assert code == 0
    assert f"{row['run_id']}  to do again" in out
    code, _, err = optimizer("recipe=fp16", "evaluation=none")
    assert code == 0
    assert err.splitlines() == [
        f"{row['run_id']}: {weights.relative_to(tmp_path)}: is not what the manifest says; make the artifact again",
        f"{row['run_id']}: fp16 on demo",
    ]
    assert weights.read_bytes() == whole


def test_one_failing_run_does_not_stop_the_others(optimizer, tmp_path):
    code, _, err = optimizer("-m", "recipe=fp16", "model.path=./nowhere,demo", "evaluation=none")
    assert code == 1
    assert "failed: model.path: './nowhere' is no directory" in err
    found = {row["model"]: row for row in rows(tmp_path / "outputs")}
    assert found["demo"]["status"] == "ok"
    assert found["nowhere"]["status"] == "failed"
    assert "is no directory" in found["nowhere"]["error"]


def test_a_run_that_cannot_be_planned_has_its_models_name(optimizer, tmp_path, tiny_model):
    model = tiny_model("causal-lm", tmp_path / "deep" / "tickets")
    settings = ("recipe=fp16", f"model.path=demo,{model}", "evaluation=none")
    code, _, _ = optimizer("-m", *settings, "+stages.cast.only=[classifier.weight]")
    assert code == 1
    found = {row["model"]: row["status"] for row in rows(tmp_path / "outputs")}
    assert found == {"demo": "ok", "tickets": "failed"}


def test_a_teams_recipe_extends_ours_with_a_knob_of_its_own(optimizer, tmp_path):
    (tmp_path / "team" / "recipe").mkdir(parents=True)
    (tmp_path / "team" / "recipe" / "ours.yaml").write_text(
        "# @package _global_\ndefaults: [pruned, _self_]\nkept: '*.pooler.*'\n"
        "stages:\n  prune: {skip: ['${kept}']}\n  cast: {dtype: bfloat16}\n"
    )
    assert optimizer("--config-dir", "team", "recipe=ours", "evaluation=none", "pruning_amount=0.1")[0] == 0
    (row,) = rows(tmp_path / "outputs")
    assert (row["recipe"], row["pruning_amount"], row["stages"]) == ("ours", "0.1", "prune cast")


@pytest.mark.parametrize("flags_first", [True, False])
def test_flags_may_stand_before_or_after_the_settings(optimizer, tmp_path, flags_first):
    (tmp_path / "team" / "recipe").mkdir(parents=True)
    (tmp_path / "team" / "recipe" / "ours.yaml").write_text("# @package _global_\ndefaults: [pruned, _self_]\n")
    flags, settings = ["-m", "--config-dir", "team"], ["recipe=ours", "pruning_amount=0.1,0.2", "evaluation=none"]
    code, _, err = optimizer(*([*flags, *settings] if flags_first else [*settings, *flags]))
    assert code == 0, err
    assert [row["pruning_amount"] for row in rows(tmp_path / "outputs")] == ["0.1", "0.2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outputs", "team"]


def test_the_composed_configuration_can_be_printed(optimizer, tmp_path):
    code, out, err = optimizer("recipe=compact", "--cfg", "job")
    assert (code, err) == (0, "")
    assert "step: 0.25" in out
    assert list(tmp_path.iterdir()) == []


def test_a_teams_recipe_may_not_have_a_shipped_name(optimizer, tmp_path):
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "fp16.yaml").write_text("# @package _global_\nstages: {}\n")
    code, _, err = optimizer("--config-dir", str(tmp_path), "recipe=fp16")
    assert code == 2
    assert "'fp16' is the name of a shipped recipe" in one_line(err)
    (tmp_path / "team" / "hydra" / "launcher").mkdir(parents=True)
    (tmp_path / "team" / "hydra" / "launcher" / "joblib.yaml").write_text("launcher: joblib\nn_jobs: 1\n")
    code, _, err = optimizer("--config-dir", "team", "recipe=fp16")
    assert code == 2
    assert "'joblib' is the name of a shipped hydra/launcher" in one_line(err)


def test_the_recipe_of_a_run_gives_the_same_run(optimizer, tmp_path):
    assert optimizer("recipe=pruned", "evaluation=none", "pruning_amount=0.15")[0] == 0
    (row,) = rows(tmp_path / "outputs")
    (tmp_path / "team" / "recipe").mkdir(parents=True)
    resolved = tmp_path / "outputs" / "runs" / row["run_id"] / "recipe.yaml"
    shutil.copy(resolved, tmp_path / "team" / "recipe" / "copied.yaml")
    code, out, err = optimizer("--config-dir", "team", "recipe=copied", "out=again")
    assert code == 0, err
    assert row["run_id"] in out


def test_stages_can_be_added_and_removed_by_name(optimizer, tmp_path):
    code, _, err = optimizer("recipe=balanced", "~stages.prune", "~stages.threshold", "evaluation=none")
    assert code == 0, err
    (row,) = rows(tmp_path / "outputs")
    assert (row["stages"], row["pruning_amount"], row["threshold"]) == ("quantize bitsandbytes cast", "", "")


@pytest.mark.slow
def test_the_default_command_measures_and_gates(optimizer, tmp_path):
    code, _, err = optimizer("recipe=fp16", "gates.agreement=0.99", "gates.speedup=1000")
    assert code == 1
    assert "speedup" in err
    assert "misses the gate 1000" in err
    assert "agreement" not in err
    (row,) = rows(tmp_path / "outputs")
    assert row["status"] == "rejected"
    assert float(row["agreement"]) > 0.99
    assert row["data"] == "demo"
    card = (tmp_path / "outputs" / row["artifact"] / "README.md").read_text()
    assert f"| agreement | {float(row['agreement']):.6g} |" in card
    assert str(tmp_path) not in card


@pytest.mark.slow
@pytest.mark.parametrize("signal_sent", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_run_leaves_nothing_that_looks_complete_and_the_next_works(tmp_path, signal_sent):
    arguments = [sys.executable, "-m", "optimizer", "recipe=fp16", f"out={tmp_path}"]
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("runs/*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal_sent)
    _, err = process.communicate(timeout=60)
    if signal_sent == signal.SIGINT:
        assert process.returncode == 130
        assert "interrupted" in err
    assert not list(tmp_path.glob("runs/*/row.json"))
    for artifact in tmp_path.glob("runs/*/artifact"):
        assert json.loads((artifact / "manifest.json").read_text())["files"]
    subprocess.run(arguments, cwd=ROOT, check=True, capture_output=True)
    (row,) = rows(tmp_path)
    assert row["status"] == "ok"


@pytest.mark.slow
def test_eight_commands_at_once_lose_no_row_and_do_the_same_run_once(tmp_path):
    amounts = [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.35]
    common = [sys.executable, "-m", "optimizer", "recipe=pruned", "evaluation=none", f"out={tmp_path}"]
    processes = [
        subprocess.Popen([*common, f"pruning_amount={amount}"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for amount in amounts
    ]
    printed = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(amounts)
    assert sorted(float(row["pruning_amount"]) for row in rows(tmp_path)) == sorted(set(amounts))
    assert printed[-1].splitlines()[1] == printed[-2].splitlines()[1]
    assert not list(tmp_path.rglob("*.partial"))
