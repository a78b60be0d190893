"""Staging: which weights a step is for, and the stages applied in their order as a lazy stream."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import tiny
import torch

from optimizer.artifact.write import write
from optimizer.errors import RecipeError, StageError
from optimizer.model.checkpoint import Checkpoint, open_checkpoint
from optimizer.model.outline import Outline
from optimizer.model.weight import Codes, Place, Weight, Weights
from optimizer.recipe import parse
from optimizer.stages import STAGES
from optimizer.stages.stage import Context, Stage, Transform
from optimizer.stages.staging import Staged

LINEAR = 2 * 6 + 2  # of two layers, the pooler and the head
LAYER = "bert.encoder.layer.0."


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_checkpoint(tiny.save(tiny.bert(), tmp_path_factory.mktemp("staging") / "model"))


def routed(checkpoint: Checkpoint, **settings: Any) -> set[str]:
    (laid,) = parse({"stages": {"prune": {"amount": 0.5} | settings}}).laid(checkpoint.outline)
    return set(laid.routed)


def refusal(checkpoint: Checkpoint, **settings: Any) -> str:
    with pytest.raises(RecipeError) as caught:
        routed(checkpoint, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def made(checkpoint: Checkpoint, stages: dict[str, Any]) -> Staged:
    return parse({"stages": stages}).staged(checkpoint, "model", lambda line: None)


def through(checkpoint: Checkpoint, *transforms: tuple[frozenset[str], Transform]) -> Staged:
    labelled = tuple((f"step{number}", *transform) for number, transform in enumerate(transforms))
    return replace(made(checkpoint, {}), transforms=labelled)


def test_without_patterns_the_stage_chooses_its_roles(checkpoint: Checkpoint) -> None:
    names = routed(checkpoint)
    assert len(names) == LINEAR
    assert {checkpoint.places[name].role for name in names} == {"linear"}


def test_only_and_skip(checkpoint: Checkpoint) -> None:
    assert routed(checkpoint, only=["*.query.weight"]) == {
        f"bert.encoder.layer.{number}.attention.self.query.weight" for number in (0, 1)
    }
    assert routed(checkpoint, only=["*.query.*", "*.key.weight"], skip=["*.1.*"]) == {
        f"{LAYER}attention.self.query.weight",
        f"{LAYER}attention.self.key.weight",
    }
    assert len(routed(checkpoint, skip=["classifier.weight"])) == LINEAR - 1


def test_a_pattern_is_matched_against_the_whole_name_and_by_its_case(checkpoint: Checkpoint) -> None:
    assert "matches no weight" in refusal(checkpoint, only=["classifier"])
    assert "matches no weight" in refusal(checkpoint, only=["CLASSIFIER.weight"])


def test_roles(checkpoint: Checkpoint) -> None:
    names = routed(checkpoint, roles=["embedding", "norm"])
    assert {checkpoint.places[name].role for name in names} == {"embedding", "norm"}
    assert routed(checkpoint, roles=["bias"], only=["classifier.*"]) == {"classifier.bias"}


@pytest.mark.parametrize("key", ["only", "skip"])
def test_a_pattern_that_matches_nothing_brings_the_nearest(checkpoint: Checkpoint, key: str) -> None:
    wrong = f"{LAYER}output.dnese.weight"
    line = refusal(checkpoint, **{key: ["*.query.weight", wrong]})
    assert line == (f"stages.prune.{key}: '{wrong}' matches no weight; did you mean '{LAYER}output.dense.weight'?")


def test_a_pattern_near_nothing_brings_a_few_names(checkpoint: Checkpoint) -> None:
    line = refusal(checkpoint, skip=["zzz"])
    assert line.startswith("stages.prune.skip: 'zzz' matches no weight; known: ")
    assert len(line) < 600


def test_a_role_that_the_model_lacks(checkpoint: Checkpoint) -> None:
    assert refusal(checkpoint, roles=["linear", "convolution"]) == (
        "stages.prune.roles: this model has no convolution weight; it has: linear, embedding, norm, bias"
    )


def test_a_step_left_without_a_weight(checkpoint: Checkpoint) -> None:
    assert refusal(checkpoint, only=["*embeddings.weight"]) == (
        "stages.prune: is left without a weight: those matched are embedding and its roles are linear; "
        "write stages.prune.roles=[embedding] or change its patterns"
    )
    assert refusal(checkpoint, skip=["*"]) == (
        "stages.prune: is left without a weight: its patterns leave none; change its patterns"
    )


def test_an_optional_role_that_the_model_lacks_leaves_the_step_out(checkpoint: Checkpoint) -> None:
    lines: list[str] = []
    step = {"amount": 0.5, "roles": ["convolution"], "optional": ["convolution"]}
    at = parse({"stages": {"prune": step, "cast": {}}}).staged(checkpoint, "model", lines.append)
    assert lines[0] == "stages.prune is left out: this model has no convolution weight"
    assert list(at.record["stages"]) == ["cast"]


@pytest.mark.parametrize("step", [{"roles": ["other"]}, {"only": ["*.query"]}, {"roles": ["convolution", "other"]}])
def test_what_a_user_writes_over_an_optional_step_is_an_error(checkpoint: Checkpoint, step: dict[str, Any]) -> None:
    assert refusal(checkpoint, **{"optional": ["linear", "convolution"]} | step).startswith("stages.prune.")


def test_the_optional_step_is_settled_in_the_record(checkpoint: Checkpoint) -> None:
    settings = {"amount": 0.5, "scope": "tensor", "pattern": "unstructured"}
    at = made(checkpoint, {"prune": {"amount": 0.5, "optional": ["linear"]}})
    assert at.record["stages"] == {"prune": {"stage": "prune"} | settings}


def test_the_stages_apply_in_the_written_order(checkpoint: Checkpoint) -> None:
    names = frozenset(["classifier.weight"])

    def add(weight: Weight) -> list[Weight]:
        return [weight.with_tensor(weight.tensor + 1)]

    def double(weight: Weight) -> list[Weight]:
        return [weight.with_tensor(weight.tensor * 2)]

    original = tiny.values(made(checkpoint, {}))["classifier.weight"]
    sum_first = tiny.values(through(checkpoint, (names, add), (names, double)))
    assert torch.equal(sum_first["classifier.weight"], (original + 1) * 2)
    product_first = tiny.values(through(checkpoint, (names, double), (names, add)))
    assert torch.equal(product_first["classifier.weight"], original * 2 + 1)


def test_weights_that_a_stage_adds_go_through_the_later_ones_by_their_own_names(checkpoint: Checkpoint) -> None:
    def split(weight: Weight) -> list[Weight]:
        return [weight, Weight("added", torch.ones(2), "linear"), Weight("scale", torch.ones(2), None)]

    def double(weight: Weight) -> list[Weight]:
        return [weight.with_tensor(weight.tensor * 2)]

    transforms = (frozenset(["classifier.weight"]), split), (frozenset(["added", "scale"]), double)
    values = tiny.values(through(checkpoint, *transforms))
    assert values["added"].tolist() == [2.0, 2.0]
    assert values["scale"].tolist() == [1.0, 1.0]


def test_what_a_step_is_not_for_stays_bit_for_bit(checkpoint: Checkpoint) -> None:
    after = tiny.values(made(checkpoint, {"prune": {"amount": 0.5, "only": ["classifier.weight"]}}))
    changed = [weight.name for weight in checkpoint.weights() if not torch.equal(weight.tensor, after[weight.name])]
    assert changed == ["classifier.weight"]


def test_a_stage_that_reads_the_model_sees_what_the_earlier_ones_left(checkpoint: Checkpoint) -> None:
    first = {"stage": "prune", "amount": 0.99, "only": ["bert.pooler.dense.weight"]}
    values = tiny.values(made(checkpoint, {"first": first, "prune": {"amount": 0.1, "scope": "model"}}))
    linear = [values[name] for name, place in checkpoint.places.items() if place.role == "linear"]
    total = sum(tensor.numel() for tensor in linear)
    assert sum(int((tensor == 0).sum()) for tensor in linear) == round(0.1 * total)


def test_a_stream_can_be_read_again(checkpoint: Checkpoint) -> None:
    at = made(checkpoint, {"prune": {"amount": 0.5, "scope": "model"}, "cast": {}})
    first, second = tiny.values(at), tiny.values(at)
    assert list(first) == list(second)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_codes_are_touched_by_no_later_stage(checkpoint: Checkpoint) -> None:
    values = tiny.values(made(checkpoint, {"bitsandbytes": {}, "cast": {"compute": "stored"}}))
    name = f"{LAYER}attention.self.query."
    assert values[f"{name}weight"].dtype == torch.int8
    assert values[f"{name}SCB"].dtype == torch.float32
    assert values[f"{name}bias"].dtype == torch.float16
    assert values["classifier.weight"].dtype == torch.float16


def test_each_step_is_logged_and_its_changes_of_the_config_are_gathered(checkpoint: Checkpoint) -> None:
    lines: list[str] = []
    recipe = parse({"stages": {"small": {"stage": "prune", "amount": 0.5}, "cast": {}}})
    at = recipe.staged(checkpoint, "model", lines.append)
    assert lines == [
        f"small: prune on {LINEAR} of {len(checkpoint.places)} weights",
        f"cast: cast on {len(checkpoint.places)} of {len(checkpoint.places)} weights",
    ]
    assert at.outline.config == {**checkpoint.config, "dtype": "float32"}


class Rename(Stage):
    """Gives a weight another name and another place."""

    kind: ClassVar[str] = "rename"
    fits: bool = True

    def outline(self, before: Outline, routed: Mapping[str, Place]) -> Outline:
        if not self.fits:
            raise StageError("it does not fit; write fits: true")
        entries = {f"{name}.new" if name in routed else name: entry for name, entry in before.entries.items()}
        return replace(before, entries={name: replace(entry, name=name) for name, entry in entries.items()})

    def prepare(self, weights: Weights, context: Context) -> Transform:
        return lambda weight: [replace(weight, name=f"{weight.name}.new")]


def test_a_later_stage_is_routed_on_what_an_earlier_one_left(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(STAGES, "rename", Rename)
    first = {"only": ["classifier.weight"]}
    values = tiny.values(made(checkpoint, {"rename": first, "prune": {"amount": 0.5, "only": ["*.new"]}}))
    assert "classifier.weight" not in values
    assert (values["classifier.weight.new"] == 0).sum() == values["classifier.weight.new"].numel() // 2
    with pytest.raises(RecipeError, match=r"^stages\.prune\.only: 'classifier\.weight' matches no weight; "):
        made(checkpoint, {"rename": first, "prune": {"amount": 0.5, "only": ["classifier.weight"]}})


def test_a_stage_that_fits_no_model_is_refused_with_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STAGES, "rename", Rename)
    with pytest.raises(RecipeError, match=r"^stages\.other: it does not fit; write fits: true$"):
        parse({"stages": {"other": {"stage": "rename", "fits": False}}})


@pytest.mark.parametrize(
    ("stages", "line"),
    [
        (
            {"prune": {"pattern": "2:7", "only": ["*.query.weight"]}},
            f"stages.prune: {LAYER}attention.self.query.weight: its input axis of 64 is no multiple of 7; "
            f"leave it out with skip: ['{LAYER}attention.self.query.weight']",
        ),
        (
            {"small": {"stage": "quantize", "bits": 4, "group": 48, "only": ["*.word_embeddings.weight"]}},
            "stages.small: bert.embeddings.word_embeddings.weight: its rows of 64 are no multiple of group: 48; "
            "write another group",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_a_tensor_is_read(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, stages: dict[str, Any], line: str
) -> None:
    monkeypatch.setattr(Checkpoint, "weights_of", None)
    recipe = parse({"stages": stages})
    with pytest.raises(StageError) as caught:
        recipe.laid(checkpoint.outline)
    assert str(caught.value) == line


def test_codes_are_restored_once_for_the_manifest_alone(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restore, asked = Codes.restore, list[Codes]()
    monkeypatch.setattr(Codes, "restore", lambda codes: (asked.append(codes), restore(codes))[1])
    recipe = parse({"stages": {"quantize": {"step": 0.25}, "cast": {}}, "format": "packed"})
    write(recipe.staged(checkpoint, "model", lambda line: None), tmp_path / "artifact")
    assert len(asked) == LINEAR + 3  # embeddings of words, positions and types


def test_an_overflow_of_codes_is_found_without_them(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    directory = tiny.save(tiny.bert(), tmp_path / "model")
    state = load_file(directory / "model.safetensors")
    state["classifier.weight"][1, 3] = -70000.0
    save_file(state, directory / "model.safetensors")
    at = tiny.staged(directory, {"quantize": {"bits": 8}, "cast": {}})
    with pytest.raises(StageError, match=r"^classifier\.weight: its largest value 70000 is beyond float16's 65504; "):
        tiny.values(at)


def test_without_stages_everything_stays(checkpoint: Checkpoint) -> None:
    at = made(checkpoint, {})
    assert at.outline == checkpoint.outline
    values = tiny.values(at)
    assert all(torch.equal(values[weight.name], weight.tensor) for weight in checkpoint.weights())


def test_what_the_model_does_not_know_is_carried_over(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    directory = tiny.save(tiny.bert(), tmp_path / "model")
    extra = torch.tensor([1.0, 70000.0])
    save_file(load_file(directory / "model.safetensors") | {"extra": extra}, directory / "model.safetensors")
    values = tiny.values(tiny.staged(directory, {"prune": {"amount": 0.5}, "cast": {}}))
    assert torch.equal(values["extra"], extra)
