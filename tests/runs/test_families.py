"""Models of every kind, through the recipes that come with the program."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from command_line import rows
from safetensors.torch import load_file
from transformers import PreTrainedModel

import optimizer as package
from optimizer.model.checkpoint import open_checkpoint
from optimizer.recipe import parse

IMAGE = {"pixel_values": torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))}
SOUND = {"input_values": torch.rand(2, 400, generator=torch.Generator().manual_seed(0))}
NO_EMBEDDING = {
    "vit": (tiny.vit, IMAGE),
    "swin": (tiny.swin, IMAGE),
    "resnet": (tiny.resnet, IMAGE),
    "wav2vec2": (tiny.wav2vec2, SOUND),
}


@pytest.mark.parametrize("recipe", ["balanced", "aggressive", "compact"])
@pytest.mark.parametrize("family", NO_EMBEDDING)
def test_a_shipped_recipe_leaves_out_what_the_model_has_nothing_for(tmp_path: Path, family: str, recipe: str) -> None:
    build, inputs = NO_EMBEDDING[family]
    original = tiny.save(build(), tmp_path / "model")
    lines: list[str] = []
    tiny.shipped(original, tmp_path / "artifact", recipe, log=lines.append)
    if recipe != "compact":
        assert "stages.quantize is left out: this model has no embedding weight" in lines
    assert _answer(package.load(tmp_path / "artifact"), inputs).isfinite().all()


@pytest.mark.parametrize("recipe", ["int8", "nf4", "balanced", "compact"])
@pytest.mark.parametrize("format_", ["dense", "packed"])
def test_torchs_own_attention_keeps_its_output(tmp_path: Path, recipe: str, format_: str) -> None:
    original = tiny.save(tiny.siglip(), tmp_path / "model")
    lines: list[str] = []
    tiny.shipped(original, tmp_path / "artifact", recipe, f"format={format_}", log=lines.append)
    kept = "vision_model.head.attention.out_proj"
    line = f"bitsandbytes: {kept} stays as it is: transformers quantizes no NonDynamicallyQuantizableLinear"
    assert (line in lines) == (recipe != "compact")
    model = package.load(tmp_path / "artifact")
    assert model.get_submodule(kept).weight.is_floating_point()
    assert _answer(model, IMAGE).isfinite().all()


def test_torchs_own_attention_is_pruned_and_quantized_like_any_matrix(tmp_path: Path) -> None:
    original = tiny.save(tiny.siglip(), tmp_path / "model")
    name = "vision_model.head.attention.in_proj_weight"
    pruned = tiny.values(tiny.staged(original, {"prune": {"amount": 0.5}}))[name]
    assert (pruned == 0).sum() == pruned.numel() // 2
    stages = {"quantize": {"bits": 4}}
    expected = tiny.values(tiny.staged(original, stages))[name]
    assert len(expected[0].unique()) <= 15
    tiny.optimize(original, tmp_path / "artifact", stages, format="packed")
    assert torch.equal(package.load(tmp_path / "artifact").get_parameter(name), expected)
    stored = load_file(tmp_path / "artifact" / "model.safetensors")[name]
    assert stored.numel() < expected.numel()


FUSED = ("model.layers.0.mlp.experts.gate_up_proj", "model.layers.0.mlp.experts.down_proj")
STACKS: dict[str, tuple[Callable[[], PreTrainedModel], tuple[str, ...]]] = {
    "mixtral": (tiny.mixtral, FUSED),
    "gpt_oss": (tiny.gpt_oss, FUSED),
    "xlnet": (tiny.xlnet, tuple(f"transformer.layer.0.rel_attn.{name}" for name in "qkvor")),
    "funnel": (tiny.funnel, ("funnel.encoder.blocks.0.0.attention.r_kernel",)),
}


@pytest.mark.parametrize("family", STACKS)
def test_matrices_of_three_axes_are_pruned_quantized_and_packed(tmp_path: Path, family: str) -> None:
    build, names = STACKS[family]
    original = tiny.save(build(), tmp_path / "model", fused=True)
    stages = {"prune": {"amount": 0.5}, "quantize": {"bits": 4, "roles": ["linear"]}}
    pruned = tiny.values(tiny.staged(original, {"prune": {"amount": 0.5}}))
    expected = tiny.values(tiny.staged(original, stages))
    assert remainder_names(original, stages).isdisjoint(names)
    tiny.optimize(original, tmp_path / "artifact", stages, format="packed")
    stored, model = load_file(tmp_path / "artifact" / "model.safetensors"), package.load(tmp_path / "artifact")
    for name in names:
        values = expected[name]
        assert (pruned[name] == 0).sum() == values.numel() // 2
        assert torch.equal(model.get_parameter(name), values)
        assert stored[name].numel() < values.numel()


def remainder_names(original: Path, stages: dict[str, Any]) -> set[str]:
    """The modules of what these stages leave alone."""
    alone = parse({"stages": stages}).remainder(open_checkpoint(original).outline)
    assert alone is not None
    return {each.module for each in alone.weights}


def test_a_convolution_is_quantized_where_it_is_asked_for(tmp_path: Path) -> None:
    original = tiny.save(tiny.resnet(), tmp_path / "model")
    stages = {"quantize": {"bits": 4, "roles": ["convolution", "linear"]}}
    tiny.optimize(original, tmp_path / "artifact", stages, format="packed")
    model = package.load(tmp_path / "artifact")
    kernels = [module.weight for module in model.modules() if isinstance(module, torch.nn.Conv2d)]
    assert kernels
    assert all(len(kernel.unique()) <= 15 for weight in kernels for kernel in weight)


def test_what_is_left_out_is_said_and_the_recipe_of_the_run_gives_it_again(
    optimizer: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    original = tiny.save(tiny.resnet(), tmp_path / "model")
    settings = ("evaluation=none", "model=local", f"model.path={original}")
    code, _, said = optimizer("recipe=balanced", *settings, "out=first")
    assert code == 0, said
    assert "stages.bitsandbytes is left out: no linear layer is left to quantize (classifier.1: it is the head)" in said
    (run,) = (tmp_path / "first" / "runs").iterdir()
    assert "stages.bitsandbytes is left out: " in (run / "run.log").read_text()
    team = tmp_path / "team" / "recipe"
    team.mkdir(parents=True)
    shutil.copy(run / "recipe.yaml", team / "again.yaml")
    code, _, said = optimizer("--config-dir", str(team.parent), "recipe=again", "out=second")
    assert code == 0, said
    assert [again.name for again in (tmp_path / "second" / "runs").iterdir()] == [run.name]


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("stages.quantize.roles=[other]", "stages.quantize.roles: this model has no other weight; it has: "),
        ("+stages.quantize.only=[nothing]", "stages.quantize.only: 'nothing' matches no weight; "),
    ],
)
def test_what_a_user_writes_stays_an_error(
    optimizer: Callable[..., tuple[int, str, str]], tmp_path: Path, setting: str, line: str
) -> None:
    original = tiny.save(tiny.resnet(), tmp_path / "model")
    code, _, said = optimizer("recipe=balanced", "model=local", f"model.path={original}", "evaluation=none", setting)
    assert code == 2
    assert line in said


@pytest.mark.parametrize("recipe", ["balanced", "int8", "pruned", "compact"])
def test_layers_that_torch_does_not_pickle_reach_the_runs_process(
    optimizer: Callable[..., tuple[int, str, str]], tmp_path: Path, recipe: str
) -> None:
    original = tiny.save(tiny.wav2vec2(), tmp_path / "model")
    code, _, said = optimizer(f"recipe={recipe}", "model=local", f"model.path={original}", "evaluation=none")
    assert code == 0, said
    (artifact,) = (tmp_path / "outputs" / "runs").glob("*/artifact")
    assert _answer(package.load(artifact), SOUND).isfinite().all()


def test_debug_shows_where_the_runs_process_failed(
    optimizer: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    model = tiny.bert()
    with torch.no_grad():
        model.classifier.weight[0, 0] = 1e6
    original = tiny.save(model, tmp_path / "model")
    arguments = ("recipe=fp16", "model=local", f"model.path={original}", "evaluation=none")
    code, _, said = optimizer(*arguments)
    assert code == 1
    assert "Traceback" not in said
    code, _, said = optimizer(*arguments, "debug=true")
    assert code == 1
    assert said.count("classifier.weight: its largest value 1e+06 is beyond float16's") >= 2
    assert "stages/cast.py" in said  # the line of the child that raised it


def test_experts_that_bitsandbytes_does_not_hold_are_told_on_screen_in_row_log_and_card(
    optimizer: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    model = tiny.mixtral()
    original = tiny.save(model, tmp_path / "moe")
    code, _, said = optimizer("recipe=int8", "model=local", f"model.path={original}", "evaluation=none")
    assert code == 0, said
    held = sum(parameter.numel() for name, parameter in model.named_parameters() if "self_attn" in name)
    every = sum(parameter.numel() for parameter in model.parameters())
    (row,) = rows(tmp_path / "outputs")
    assert float(row["untouched_ratio"]) == pytest.approx(1 - held / every)
    reason = "transformers quantizes no layer of its kind"
    norms = sum(parameter.numel() for name, parameter in model.named_parameters() if "norm" in name)
    router = sum(parameter.numel() for name, parameter in model.named_parameters() if "mlp.gate" in name)
    share = f"{(every - held - norms - router) / (every - norms - router):.0%}"
    assert (
        f"int8 on moe: its stages leave {share} of the bytes of linear weights and embeddings alone, "
        f"the most in model.layers.0.mlp.experts: {reason}" in said
    )
    (run,) = (tmp_path / "outputs" / "runs").iterdir()
    table = (run / "artifact" / "README.md").read_text().partition("## Left alone")[2]
    largest = next(line for line in table.splitlines() if "mlp.experts" in line)
    assert largest == f"| model.layers.0.mlp.experts | 8 | 128 x 64 | {8 * 128 * 64 * 4} | {reason} |"
    assert table.index("128 x 64") < table.index("model.embed_tokens")
    log = (run / "run.log").read_text()
    more = re.search(r"and (\d+) smaller ones", table)
    assert log.count("left alone: ") == table.count("\n| ") - 2 + (int(more[1]) if more else 0)
    assert f"left alone: model.layers.0.mlp.experts, 8 of 128 x 64, {8 * 128 * 64 * 4} bytes: {reason}" in log


def test_experts_in_one_tensor_are_told_too(optimizer: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    model = tiny.gpt_oss()
    original = tiny.save(model, tmp_path / "moe")
    code, _, said = optimizer("recipe=int8", "model=local", f"model.path={original}", "evaluation=none")
    assert code == 0, said
    reason = "transformers quantizes no layer of its kind"
    assert f"the most in model.layers.0.mlp.experts: {reason}" in said
    (row,) = rows(tmp_path / "outputs")
    held = sum(p.numel() for name, p in model.named_parameters() if "self_attn" in name and "_proj.weight" in name)
    every = sum(parameter.numel() for parameter in model.parameters())
    assert float(row["untouched_ratio"]) == pytest.approx(1 - held / every)
    (run,) = (tmp_path / "outputs" / "runs").iterdir()
    log = (run / "run.log").read_text()
    assert f"bitsandbytes: model.layers.0.mlp.experts stays as it is: {reason}" in log
    assert f"left alone: model.layers.0.mlp.experts, 4 x 64 x 96, {4 * 64 * 96 * 4} bytes: {reason}" in log


@pytest.mark.parametrize(("recipe", "ratio"), [("fp16", 1.0), ("balanced", None)])
def test_the_screen_is_silent_where_little_or_nothing_was_to_be_changed(
    optimizer: Callable[..., tuple[int, str, str]], tmp_path: Path, recipe: str, ratio: float | None
) -> None:
    original = tiny.save(tiny.bert(), tmp_path / "model")
    code, _, said = optimizer(f"recipe={recipe}", "model=local", f"model.path={original}", "evaluation=none")
    assert code == 0, said
    assert "alone" not in said
    (row,) = rows(tmp_path / "outputs")
    assert float(row["untouched_ratio"]) == ratio or 0 < float(row["untouched_ratio"]) < 0.05


def test_the_best_text_for_an_image_agrees(
    optimizer: Callable[..., tuple[int, str, str]], tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    original = tiny_model("zero-shot-image-classification", tmp_path / "clip")
    settings = "model=local", f"model.path={original}", "evaluation.repetitions=1", "evaluation.warmup=0", "threads=1"
    for recipe in ("packed_fp16", "compact"):
        code, _, said = optimizer(f"recipe={recipe}", *settings)
        assert code == 0, said
    compact, half = sorted(rows(tmp_path / "outputs"), key=lambda row: row["recipe"])
    assert (half["data"], half["examples"]) == ("random", "64")
    assert 0.9 < float(half["agreement"]) <= 1
    assert 0.1 < float(compact["agreement"]) <= 1
    assert float(compact["max_logit_difference"]) > float(half["max_logit_difference"]) > 0
    assert float(half["latency_ms_p50"]) > 0
    assert float(half["batch_changed"]) == 0


def test_speech_recognition_is_measured_by_what_is_written(
    optimizer: Callable[..., tuple[int, str, str]], tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    original = tiny_model("speech-seq2seq", tmp_path / "whisper")
    settings = "model=local", f"model.path={original}", "evaluation.repetitions=1", "evaluation.warmup=0", "threads=1"
    code, _, said = optimizer("recipe=compact", *settings)
    assert code == 0, said
    (row,) = rows(tmp_path / "outputs")
    assert row["data"] == "random"
    assert 0 < float(row["agreement"]) <= 1
    assert float(row["word_error_rate"]) > 0
    assert float(row["peak_memory_mb"]) > 0
    card = (tmp_path / "outputs" / row["artifact"] / "README.md").read_text()
    assert "| word_error_rate | " in card
    code, _, said = optimizer("recipe=compact_int8", *settings)
    assert code == 2
    assert "not speech-seq2seq; write " in said


def _answer(model: PreTrainedModel, inputs: dict[str, Any]) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(**inputs).logits
    return logits
