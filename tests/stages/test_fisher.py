"""Bits where the answers depend on them: the budget is kept, answers stay nearer, and the codes are what is stored."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch.nn import functional

import optimizer
from optimizer.artifact.write import write
from optimizer.engines.engine_codes import holds
from optimizer.errors import RecipeError, StageError
from optimizer.model.checkpoint import open_checkpoint
from optimizer.model.weight import Codes, Weight
from optimizer.packing.payload import pack
from optimizer.recipe import parse
from optimizer.stages.quantize import Quantize
from optimizer.stages.rounding import Costs, with_feedback
from optimizer.stages.staging import Staged

BITS = 3.0


def texts(count: int = 64) -> list[dict[str, torch.Tensor]]:
    draw = torch.Generator().manual_seed(0)
    found = []
    for number in range(count):
        ids = torch.randint(5, tiny.VOCABULARY - 20, (1, 6 + number % 3), generator=draw)
        found.append({"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": ids * 0})
    return found


def uneven() -> Any:
    """A classifier of which some inputs of each layer say much more than others, and follow from each other."""
    model: Any = tiny.bert(vocab_size=tiny.VOCABULARY, intermediate_size=256, initializer_range=0.15)
    with torch.no_grad():
        for layer in model.bert.encoder.layer:
            layer.output.LayerNorm.weight *= torch.logspace(-1, 1, 64)
            layer.attention.output.LayerNorm.weight *= torch.logspace(-1, 1, 64)
    return model.eval()


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(uneven(), tmp_path_factory.mktemp("fisher") / "model")


def staged(original: Path, bits: float = BITS, **keys: Any) -> Staged:
    stage = {"allocate": "fisher", "bits_per_parameter": bits, **keys}
    return tiny.staged(original, {"quantize": stage}, examples=texts)


def codes_of(at: Staged) -> dict[str, Codes]:
    found = (weight for shard in at.original.shards for weight in at.stream(shard))
    return {weight.name: weight.codes for weight in found if weight.codes is not None}


def divergence(at: Staged) -> float:
    """How far the answers have moved, in nats a text."""
    before, after = at.original, at.materialise()
    model: Any = type(after).from_pretrained(before.directory).eval()
    total = 0.0
    with torch.no_grad():
        for text in texts(96):
            expected, found = (each(**text).logits.log_softmax(-1) for each in (model, after))
            total += float(functional.kl_div(found, expected, log_target=True, reduction="sum"))
    return total / 96


@pytest.mark.parametrize("bits", [2.0, 3.0, 5.0])
def test_the_codes_take_what_they_may(original: Path, bits: float) -> None:
    said: list[str] = []
    stage = {"allocate": "fisher", "bits_per_parameter": bits}
    found = codes_of(tiny.staged(original, {"quantize": stage}, said.append, texts))
    assert len(found) == 17  # every matrix
    values = sum(codes.values.numel() for codes in found.values())
    taken = max(float(line.split()[-4]) for line in said if "makes" in line and float(line.split()[-4]) <= bits)
    assert 0.97 * bits < taken <= bits
    # Headers and histograms weigh in matrices of a few thousand values.
    packed = sum(8 * pack(Weight("a.weight", codes, "linear", "a")).numel() for codes in found.values())
    assert taken * values < packed < 1.5 * taken * values


def test_answers_stay_nearer_than_with_one_step_for_each_matrix_at_as_many_bits(original: Path) -> None:
    fisher = staged(original)
    taken = sum(8 * pack(Weight("a.weight", codes, "linear", "a")).numel() for codes in codes_of(fisher).values())
    step = 0.5
    plain = tiny.staged(original, {"quantize": {"step": step}})
    while sum(8 * pack(Weight("a.weight", codes, "linear", "a")).numel() for codes in codes_of(plain).values()) < taken:
        step *= 0.95
        plain = tiny.staged(original, {"quantize": {"step": step}})
    assert divergence(fisher) < 0.6 * divergence(plain)


def test_rows_that_no_text_looks_up_get_coarser_steps(original: Path) -> None:
    table = codes_of(staged(original))["bert.embeddings.word_embeddings.weight"]
    seen, unseen = table.scale[5 : tiny.VOCABULARY - 20], table.scale[tiny.VOCABULARY - 20 :]
    assert float(unseen.min()) > 2 * float(seen.median())


def test_an_engine_holds_the_rows_of_tables_as_they_are(original: Path) -> None:
    table = codes_of(staged(original, 6.5))["bert.embeddings.word_embeddings.weight"]
    assert table.values.dtype == torch.int8
    assert int(table.values.abs().max()) > 60
    assert holds(table)
    restored_ = table.values.float() * table.scale
    assert torch.equal(table.restore(), restored_)


def test_the_same_texts_give_the_same_codes(original: Path) -> None:
    one, two = codes_of(staged(original)), codes_of(staged(original))
    assert all(torch.equal(one[name].values, two[name].values) for name in one)
    assert all(torch.equal(one[name].scale, two[name].scale) for name in one)


def test_the_artifact_holds_what_was_staged(original: Path, tmp_path: Path) -> None:
    recipe = parse({"stages": {"quantize": {"allocate": "fisher", "bits_per_parameter": BITS}}, "format": "packed"})
    at = recipe.staged(open_checkpoint(original), "model", lambda line: None, texts)
    write(at, tmp_path / "artifact")
    loaded = optimizer.load(tmp_path / "artifact").state_dict()
    for name, value in tiny.values(at).items():
        assert torch.equal(loaded[name], value), name


def test_gpt2_stores_its_matrices_transposed(tmp_path: Path) -> None:
    original = tiny.save(tiny.gpt2(), tmp_path / "model")
    ids = [{"input_ids": text["input_ids"], "attention_mask": text["attention_mask"]} for text in texts(24)]
    at = tiny.staged(original, {"quantize": {"allocate": "fisher", "bits_per_parameter": 4.0}}, examples=lambda: ids)
    weight = codes_of(at)["transformer.h.0.mlp.c_fc.weight"]
    assert weight.columns is not None
    assert (weight.scale.shape[1], weight.columns.shape[0]) == (1, 1)
    assert (weight.scale.shape[0], weight.columns.shape[1]) == tuple(weight.values.shape)
    before = tiny.values(tiny.staged(original, {}))["transformer.h.0.mlp.c_fc.weight"]
    assert float((weight.restore() - before).norm() / before.norm()) < 0.3


def test_a_matrix_that_nothing_is_known_of_gets_a_usual_step_and_the_log_says_so(tmp_path: Path) -> None:
    original = tiny.save(tiny.mixtral(), tmp_path / "model")
    ids = [{"input_ids": text["input_ids"], "attention_mask": text["attention_mask"]} for text in texts(24)]
    said: list[str] = []
    stage = {"allocate": "fisher", "bits_per_parameter": 4.0}
    found = codes_of(tiny.staged(original, {"quantize": stage}, said.append, lambda: ids))
    (line,) = [line for line in said if "nothing is known of" in line]
    experts = [name for name in found if "experts" in name]
    assert experts
    assert all(name in line for name in experts[:3])


# feedback


def test_what_a_column_loses_the_others_make_up_for() -> None:
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(500, 8, generator=draw, dtype=torch.float64) @ torch.randn(8, 40, generator=draw).double()
    moments = inputs.T @ inputs / 500 + 0.05 * torch.eye(40, dtype=torch.float64)
    values = torch.randn(30, 40, generator=draw, dtype=torch.float64)
    rows, columns = torch.full((30, 1), 0.5, dtype=torch.float64), torch.ones(1, 40, dtype=torch.float64)
    plain = (values / 0.5).round()
    flat = Costs(torch.zeros(30, 40, dtype=torch.long), torch.zeros(1, 255), 127)
    codes = with_feedback(values, torch.linalg.cholesky(moments), rows, columns, flat)

    def lost(found: torch.Tensor) -> float:
        error = values - found * 0.5
        return float(((error @ moments) * error).sum())

    assert lost(codes) < 0.4 * lost(plain)
    assert torch.equal(codes, codes.round())


def test_a_code_that_costs_less_is_taken_where_it_is_hardly_further_away() -> None:
    common = torch.zeros(1000)
    costs = Costs.of(torch.cat([common, torch.ones(30)])[None], torch.zeros(1, 1, dtype=torch.int32))
    ratios = torch.full((1, 1030), 0.55)
    assert not costs.cheaper(ratios, slice(None)).any()
    assert bool((costs.cheaper(ratios + 0.4, slice(None)) == 1).all())


# refusals


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"allocate": "fisher"}, "one of them is required"),
        ({"bits_per_parameter": 2.0}, "go together; write allocate: fisher, bits_per_parameter: 2.5"),
        ({"allocate": "fisher", "bits_per_parameter": 2.0, "step": 0.5}, "exclude each other; remove one"),
        ({"allocate": "fisher", "bits_per_parameter": 2.0, "dead_zone": 0.5}, "does not go with allocate"),
        ({"allocate": "fisher", "bits_per_parameter": 0.1}, "greater than or equal to 0.5"),
        ({"allocate": "hessian", "bits_per_parameter": 2.0}, "'fisher'"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse({"stages": {"quantize": settings}})


def test_it_needs_texts(original: Path) -> None:
    with pytest.raises(StageError, match=r"needs calibration texts; write data\.calibration=FILE"):
        tiny.staged(original, {"quantize": {"allocate": "fisher", "bits_per_parameter": 2.0}})


def test_a_model_that_reads_no_text_is_refused_before_a_value_is_read(tmp_path: Path) -> None:
    original = tiny.save(tiny.resnet(), tmp_path / "model")
    stage = {"allocate": "fisher", "bits_per_parameter": 2.0}
    with pytest.raises(
        StageError, match=r"no texts can be calibrated on for image-classification; write recipe=compact"
    ):
        tiny.staged(original, {"quantize": stage}, examples=texts)


def test_kernels_are_refused_before_a_value_is_read() -> None:
    stage = Quantize(allocate="fisher", bits_per_parameter=2.0)
    outline = tiny.outline(torch.zeros(4, 3, 2, 2))
    with pytest.raises(StageError, match=r"allocate is for matrices, .* leave it out with skip:"):
        stage.outline(outline, outline.places)


def test_recipes_without_it_keep_their_ids() -> None:
    made = parse({"stages": {"quantize": {"step": 0.25}}}).made_by()
    assert made["stages"]["quantize"].keys() == {"stage", "bits", "group", "step", "dead_zone"}
