"""Narrowing: what nothing needs goes first, what stays stands in for it, and shapes stay."""

from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from command_line import rows
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, DebertaV2Config, DebertaV2ForSequenceClassification

from optimizer.artifact.write import write
from optimizer.errors import RecipeError, StageError
from optimizer.model.blocks import Block
from optimizer.model.checkpoint import open_checkpoint
from optimizer.recipe import parse
from optimizer.stages.curvature import Curvature, curvatures
from optimizer.stages.elimination import Removal, removals, without
from optimizer.stages.latency_table import seconds_a_token, seconds_saved
from optimizer.stages.narrow import Removable, choose
from tests.conftest import WORDS

DOWN = "bert.encoder.layer.{}.output.dense"
UP = "bert.encoder.layer.{}.intermediate.dense"
OUT = "bert.encoder.layer.{}.attention.output.dense"


def texts(count: int = 48) -> list[dict[str, torch.Tensor]]:
    """Texts of different lengths, as tokens."""
    draw = torch.Generator().manual_seed(0)
    found = []
    for number in range(count):
        ids = torch.randint(5, tiny.VOCABULARY, (1, 4 + number % 9), generator=draw)
        found.append({"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": ids * 0})
    return found


def doubled() -> Any:
    """A classifier whose second half of neurons makes what the first half makes already."""
    model: Any = tiny.bert(num_hidden_layers=2)
    with torch.no_grad():
        for layer in model.bert.encoder.layer:
            up = layer.intermediate.dense
            up.weight[64:] = up.weight[:64]
            up.bias[64:] = up.bias[:64]
    return model.eval()


def answers(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = torch.cat([model(**text).logits for text in texts(12)])
    return found


def narrowed(original: Path, amount: float, given: Iterable[Any] | None = None, **keys: Any) -> dict[str, torch.Tensor]:
    examples = list(texts() if given is None else given)
    return tiny.values(tiny.staged(original, {"narrow": {"amount": amount, **keys}}, examples=lambda: examples))


def loaded(original: Path, state: dict[str, torch.Tensor]) -> Any:
    model = AutoModelForSequenceClassification.from_pretrained(original)
    model.load_state_dict(state)
    return model.eval()


def test_neurons_that_others_can_stand_in_for_go_and_answers_stay(tmp_path: Path) -> None:
    original = tiny.save(doubled(), tmp_path / "model")
    before = load_file(original / "model.safetensors")
    after = narrowed(original, 0.12, heads=False)
    assert {name: value.shape for name, value in after.items()} == {name: value.shape for name, value in before.items()}
    gone = (after[f"{DOWN.format(0)}.weight"] == 0).all(0)
    assert gone.sum() in (32, 64)
    assert (after[f"{UP.format(0)}.weight"][gone] == 0).all()
    assert (after[f"{UP.format(0)}.weight"][~gone] == before[f"{UP.format(0)}.weight"][~gone]).all()
    assert torch.equal(after[f"{OUT.format(0)}.weight"], before[f"{OUT.format(0)}.weight"])
    expected = answers(loaded(original, before))
    naive = dict(before)
    for layer in range(2):
        name = f"{DOWN.format(layer)}.weight"
        naive[name] = before[name] * (after[name] != 0).any(0)
    error, without_fit = ((answers(loaded(original, state)) - expected).norm() for state in (after, naive))
    assert error < 0.2 * expected.norm()
    assert error < 0.5 * without_fit


def test_amount_is_what_is_saved_and_zero_saves_nothing(tmp_path: Path) -> None:
    original = tiny.save(tiny.bert(), tmp_path / "model")
    before = load_file(original / "model.safetensors")
    assert all(torch.equal(value, before[name]) for name, value in narrowed(original, 0).items())

    def zeros(amount: float) -> int:
        return sum(int((value == 0).all(0).sum()) for name, value in narrowed(original, amount).items()
                   if name.endswith("output.dense.weight"))  # fmt: skip

    assert 0 < zeros(0.1) < zeros(0.5)


def test_whole_heads_go(tmp_path: Path) -> None:
    model: Any = tiny.bert()
    with torch.no_grad():  # a head that nothing hears
        model.bert.encoder.layer[0].attention.output.dense.weight[:, 32:] *= 1e-6
    original = tiny.save(model, tmp_path / "model")
    after = narrowed(original, 0.05)
    gone = (after[f"{OUT.format(0)}.weight"] == 0).all(0)
    assert gone.tolist() == [False] * 32 + [True] * 32
    for part in ("query", "key", "value"):
        assert (after[f"bert.encoder.layer.0.attention.self.{part}.weight"][32:] == 0).all()


def test_the_same_twice(tmp_path: Path) -> None:
    original = tiny.save(tiny.bert(), tmp_path / "model")
    one, other = (narrowed(original, 0.3) for _ in range(2))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_layers_that_are_read_by_the_first_token_alone_are_known(tmp_path: Path) -> None:
    model = tiny.bert().eval()
    found = curvatures(model, "sequence-classification", [DOWN.format(0), DOWN.format(1)], texts())
    mean = sum(text["input_ids"].shape[1] for text in texts()) / len(texts())
    assert found[DOWN.format(0)].deciding == 1
    assert found[DOWN.format(1)].deciding == pytest.approx(1 / mean)


@pytest.mark.parametrize(
    ("task", "build"),
    [("token-classification", "BertForTokenClassification"), ("question-answering", "BertForQuestionAnswering"),
     ("encoder", "BertModel")],
)  # fmt: skip
def test_other_tasks_have_a_curvature_in_every_token(task: Any, build: str) -> None:
    import transformers

    config = tiny.bert(num_labels=2).config
    model = getattr(transformers, build)(config).eval()
    prefix = "" if build == "BertModel" else "bert."
    name = f"{prefix}encoder.layer.1.output.dense"
    found = curvatures(model, task, [name], texts(8))[name]
    assert found.deciding == 1
    assert found.inputs.isfinite().all()
    assert found.gradients.trace() > 0


@pytest.mark.parametrize("change", [{"num_labels": 1}, {"problem_type": "multi_label_classification"}])
def test_numbers_and_sets_have_one_too(change: dict[str, Any]) -> None:
    model = tiny.bert(**change).eval()
    assert curvatures(model, "sequence-classification", [DOWN.format(1)], texts(8))[DOWN.format(1)].weight > 0


def test_what_others_hold_costs_nothing_and_is_made_up_for() -> None:
    draw = torch.Generator().manual_seed(0)
    half = torch.randn(500, 32, generator=draw).double()
    inputs = torch.cat([half, half], dim=1)
    weight = torch.randn(16, 64, generator=draw)
    known = Curvature(inputs.T @ inputs / 500, torch.eye(16).double())
    found = removals(weight, known, 1, 8)
    assert sum(removal.loss for removal in found[:4]) < 0.05 * sum(removal.loss for removal in found)
    columns = torch.cat([removal.columns for removal in found[:4]])
    assert len({int(column) % 32 for column in columns}) == 32, "one of each pair"
    after = without(weight, known, columns)
    assert (after[:, columns] == 0).all()
    expected = inputs @ weight.T.double()
    assert (inputs @ after.T.double() - expected).norm() < 0.02 * expected.norm()


def test_the_cheapest_divergence_for_a_multiply_add_goes_first() -> None:
    def units(cost: float, *losses: float) -> Removable:
        found = [Removal(torch.tensor([place]), loss) for place, loss in enumerate(losses)]
        known = Curvature(torch.eye(1), torch.eye(1))
        block = Block("heads", ("up",), "down", 1, parts=1, attention="attention", ranked=True)
        saves = [cost * number for number in range(len(losses) + 1)]
        return Removable(block, known, len(losses) + 1, found, saves, whole=cost * (len(losses) + 1))

    dear, cheap = units(1, 1.0, 1.0), units(10, 2.0, 0.1, 50.0)
    assert choose([dear, cheap], 0.25)[0] == [0, 2]
    assert choose([dear, cheap], 0.0)[0] == [0, 0]
    chosen, saved, _ = choose([dear, cheap], 0.99)
    assert chosen == [2, 3]
    assert saved == pytest.approx(32 / 43)


@pytest.mark.parametrize("measure", ["int8", "bfloat16", "float32"])
def test_what_is_saved_may_be_measured(tmp_path: Path, measure: str) -> None:
    original = tiny.save(tiny.bert(), tmp_path / "model")
    said: list[str] = []
    examples = texts()
    stages = {"narrow": {"amount": 0.3, "measure": measure}}
    values = tiny.values(tiny.staged(original, stages, log=said.append, examples=lambda: examples))
    assert any((value == 0).all(0).any() for name, value in values.items() if name.endswith("output.dense.weight"))
    (line,) = (line for line in said if "expected to cost" in line)
    share = float(line.split(": ")[1].partition("%")[0])
    assert f"% of the time, measured in {measure}, saved" in line
    assert share > 0


def test_a_table_of_few_widths_never_says_that_less_work_costs_more() -> None:
    asked: list[int] = []

    def noisy(width: int) -> float:
        asked.append(width)
        return width + (40 if width == 80 else 0)

    saved = seconds_saved(noisy, 128, [0, 32, 64, 96])
    assert saved[0] == 0
    assert all(one < another for one, another in pairwise(saved))
    assert saved[-1] == 96
    assert len(asked) <= 6
    assert seconds_a_token("float32", 64, 4096) > seconds_a_token("float32", 64, 64) > 0
    assert seconds_a_token("int8", 64, 0) == 0


def test_a_model_without_such_layers_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    original = tiny.save(tiny.gpt2(), tmp_path / "model")
    with pytest.raises(StageError, match=r"^stages\.narrow: it knows no layer of a 'gpt2' model among these"):
        narrowed(original, 0.1)


def test_heads_of_deberta_stay(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = DebertaV2Config(
        vocab_size=tiny.VOCABULARY, hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=128,
        relative_attention=True, pos_att_type=["p2c", "c2p"], initializer_range=0.3, num_labels=3, type_vocab_size=0,
    )  # fmt: skip
    original = tiny.save(DebertaV2ForSequenceClassification(config), tmp_path / "model")
    before, after = load_file(original / "model.safetensors"), narrowed(original, 0.2)
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {f"deberta.encoder.layer.0.{name}.weight" for name in ("intermediate.dense", "output.dense")}


@pytest.mark.parametrize("format", ["dense", "packed"])
@pytest.mark.parametrize("model", [doubled, tiny.distilbert])
def test_one_width_for_all_layers_is_a_smaller_model_that_loads(tmp_path: Path, format: str, model: Any) -> None:
    original = tiny.save(model(), tmp_path / "model")
    settings = {"amount": 0.12, "heads": False, "uniform": True}
    recipe = parse({"name": "tiny", "stages": {"narrow": settings}, "format": format})
    examples = texts()
    write(recipe.staged(open_checkpoint(original), "model", lambda line: None, lambda: examples), tmp_path / "out")
    loaded, info = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values()), info
    width = "hidden_dim" if model is tiny.distilbert else "intermediate_size"
    assert getattr(loaded.config, width) == 96
    full = AutoModelForSequenceClassification.from_pretrained(original)
    assert loaded.num_parameters() < full.num_parameters()
    if model is doubled:
        expected, found = answers(full.eval()), answers(loaded.eval())
        assert (found - expected).norm() < 0.1 * expected.norm()


def test_one_width_needs_every_layer_and_neurons_to_spare(tmp_path: Path) -> None:
    original = tiny.save(tiny.bert(), tmp_path / "model")
    for settings, line in (
        ({"amount": 0.9}, r"^stages\.narrow: uniform: \d+ of 128 neurons of each layer would go, 96 may; write less"),
        (
            {"amount": 0.1, "skip": ["*.layer.0.*"]},
            r"^stages\.narrow: uniform: needs the feed-forward matrices of every",
        ),
    ):
        with pytest.raises(StageError, match=line):
            narrowed(original, heads=False, uniform=True, **settings)
    with pytest.raises(RecipeError, match=r"^stages\.narrow: uniform takes no heads; write heads: false beside it$"):
        narrowed(original, 0.1, uniform=True)
    with pytest.raises(RecipeError, match=r"^stages\.narrow: uniform takes as many .*; remove measure$"):
        narrowed(original, 0.1, heads=False, uniform=True, measure="int8")


def test_without_texts_it_says_what_to_write(tmp_path: Path) -> None:
    original = tiny.save(tiny.bert(), tmp_path / "model")
    with pytest.raises(StageError, match=r"^stages\.narrow: needs calibration texts; write data\.calibration=FILE$"):
        tiny.staged(original, {"narrow": {"amount": 0.1}})
    with pytest.raises(RecipeError, match=r"^stages\.narrow\.amount: "):
        tiny.staged(original, {"narrow": {"amount": 1.5}})


def test_a_run_takes_its_calibration_texts(
    optimizer: Callable[..., tuple[int, str, str]], tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    original = tiny_model("sequence-classification")
    words = ["the cat", "a dog runs", "the bird sees a fish", "red", "big dogs sleep now", "here and there a cat"]
    (tmp_path / "some.txt").write_text("".join(f"{word}\n" for word in words))
    (tmp_path / "others.txt").write_text("".join(f"{one} {other}\n" for one in words for other in words))
    code, _, said = optimizer(
        "recipe=narrow_int8", "model=local", f"model.path={original}", "data.path=some.txt", "format=packed", "~engine",
        "data.calibration=others.txt", "stages.narrow.amount=0.2", "evaluation.repetitions=0",
    )  # fmt: skip
    assert code == 0, said
    (row,) = rows(tmp_path / "outputs")
    assert row["calibration_examples"] == "36"
    log = next((tmp_path / "outputs" / "runs").glob("*/run.log")).read_text()
    assert "of 64 neurons removed" in log


def test_calibration_texts_that_are_measured_on_are_counted_on_the_screen(
    optimizer: Callable[..., tuple[int, str, str]], tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "some.txt").write_text("the cat\na dog runs\n")
    others = [f"the {one} {other} {third}\n" for one in WORDS[:7] for other in WORDS[:5] for third in WORDS[:4]]
    (tmp_path / "others.txt").write_text("".join([*others, "a dog runs\n"]))
    words = [
        "recipe=narrow_int8", "model=local", f"model.path={tiny_model('sequence-classification')}", "format=packed",
        "data.path=some.txt", "~engine", "evaluation=none",
    ]  # fmt: skip
    code, _, said = optimizer(*words, "data.calibration=others.txt")
    assert code == 0, said
    assert ": 1 of the calibration texts are measured on too, and not calibrated on\n" in said
    code, _, said = optimizer(*words, "data.calibration=elsewhere.txt")
    assert code == 2
    assert said.startswith("optimizer: data.calibration: 'elsewhere.txt' does not exist")
