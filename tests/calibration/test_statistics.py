"""Statistics of a model's answers: what brute force finds, kept once for all that need them."""

import copy
import multiprocessing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch.nn import functional
from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

from optimizer.calibration.statistics import Linear, Rows, Statistics, statistics
from optimizer.calibration.store import stored

LAYER = "bert.encoder.layer.0.intermediate.dense"
TABLE = "bert.embeddings.word_embeddings"


def texts(count: int = 40, least: int = 5) -> list[dict[str, torch.Tensor]]:
    draw = torch.Generator().manual_seed(0)
    found = []
    for number in range(count):
        ids = torch.randint(least, tiny.VOCABULARY - 20, (1, 4 + number % 5), generator=draw)
        found.append({"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": ids * 0})
    return found


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny.bert(initializer_range=0.1, num_labels=2).eval()


def expected(model: Any, given: list[dict[str, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """By one backward pass for each text and answer, weighed by its probability: no drawing."""
    model = copy.deepcopy(model).requires_grad_(True)
    seen: dict[str, torch.Tensor] = {}
    module = model.get_submodule(LAYER)

    def keep(_: Any, inputs: tuple[torch.Tensor, ...], made: torch.Tensor) -> None:
        made.retain_grad()
        seen.update(inputs=inputs[0].detach()[0], made=made)

    module.register_forward_hook(keep)
    tokens, moments = 0, torch.zeros(64, 64)
    outputs, rows = torch.zeros(128), torch.zeros(tiny.VOCABULARY)
    for text in given:
        logits = model(**text).logits
        moments += seen["inputs"].T @ seen["inputs"]
        tokens += len(seen["inputs"])
        for answer, share in enumerate(logits.detach().softmax(-1)[0]):
            model.zero_grad()
            seen["made"].grad = None
            functional.cross_entropy(logits, torch.tensor([answer])).backward(retain_graph=True)
            outputs += share * seen["made"].grad[0].square().sum(0)
            rows += share * model.get_submodule(TABLE).weight.grad.square().mean(1)
    return moments / tokens, outputs / len(given), rows / len(given)


def test_they_are_what_brute_force_finds(model: Any) -> None:
    given = texts() * 6  # as many draws more
    found = statistics(copy.deepcopy(model), "sequence-classification", given)
    moments, outputs, rows = expected(model, texts())
    assert found.texts == len(given)
    assert torch.allclose(found.linear[LAYER].inputs, moments, rtol=1e-4, atol=1e-5)
    assert functional.cosine_similarity(found.linear[LAYER].outputs, outputs, dim=0) > 0.99
    assert float(found.linear[LAYER].outputs.sum() / outputs.sum()) == pytest.approx(1, abs=0.2)
    assert functional.cosine_similarity(found.rows[TABLE].gradients, rows, dim=0) > 0.97


def test_rows_are_counted_as_they_are_looked_up(model: Any) -> None:
    given = texts()
    found = statistics(copy.deepcopy(model), "sequence-classification", given).rows[TABLE]
    counted = torch.zeros(tiny.VOCABULARY)
    for text in given:
        counted += torch.bincount(text["input_ids"][0], minlength=tiny.VOCABULARY)
    assert torch.allclose(found.seen * len(given), counted)
    assert not found.gradients[counted == 0].any()
    positions = statistics(copy.deepcopy(model), "sequence-classification", given).rows[
        "bert.embeddings.position_embeddings"
    ]
    assert torch.allclose(positions.seen[:4], torch.ones(4))  # every text has four tokens at least


def test_the_same_texts_give_the_same_figures_and_the_model_needs_no_gradients_any_more(model: Any) -> None:
    one, two = (copy.deepcopy(model) for _ in range(2))
    first, second = (statistics(each, "sequence-classification", texts()) for each in (one, two))
    assert same(first, second)
    assert not any(parameter.requires_grad for parameter in one.parameters())
    assert all(parameter.grad is None for parameter in one.parameters())


def test_a_module_that_is_called_twice_sees_inputs_of_both_kinds() -> None:
    torch.manual_seed(0)
    config = DebertaV2Config(
        vocab_size=tiny.VOCABULARY, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=32, relative_attention=True, position_buckets=8, share_att_key=True,
        pos_att_type=["p2c", "c2p"], num_labels=3, pad_token_id=0,
    )  # fmt: skip
    found = statistics(DebertaV2ForSequenceClassification(config).eval(), "sequence-classification", texts())
    assert {"deberta.encoder.layer.0.attention.self.query_proj", "deberta.encoder.layer.0.output.dense"} <= set(
        found.linear
    )
    assert found.rows["deberta.encoder.rel_embeddings"].gradients.any()
    assert not found.rows["deberta.encoder.rel_embeddings"].seen.any()


# kept


def same(one: Statistics, two: Statistics) -> bool:
    def flat(known: Statistics) -> dict[str, torch.Tensor]:
        parts: Mapping[str, Mapping[str, Linear | Rows]] = {"linear": known.linear, "rows": known.rows}
        return {
            f"{part} {name} {figure}": tensor
            for part, modules in parts.items()
            for name, of in modules.items()
            for figure, tensor in vars(of).items()
        }

    left, right = flat(one), flat(two)
    return (
        one.texts == two.texts
        and left.keys() == right.keys()
        and all(torch.equal(left[key], right[key]) for key in left)
    )


@pytest.fixture(scope="module")
def known(model: Any) -> Statistics:
    return statistics(copy.deepcopy(model), "sequence-classification", texts(8))


def never() -> Statistics:
    raise AssertionError("computed again")


def test_they_are_computed_once_for_each_model_and_texts(known: Statistics, tmp_path: Path) -> None:
    folder = tmp_path / "originals"
    assert same(stored(folder, {"original": "a"}, lambda: known), known)
    assert same(stored(folder, {"original": "a"}, never), known)
    with pytest.raises(AssertionError, match="computed again"):
        stored(folder, {"original": "b"}, never)


@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
def test_what_is_damaged_is_computed_again(known: Statistics, tmp_path: Path, damage: str) -> None:
    stored(tmp_path, {"original": "a"}, lambda: known)
    (path,) = tmp_path.glob("*.safetensors")
    raw = bytearray(path.read_bytes())
    raw[-20] ^= 1
    path.write_bytes({"cut": bytes(raw[:-50]), "changed": bytes(raw), "empty": b""}[damage])
    assert same(stored(tmp_path, {"original": "a"}, lambda: known), known)
    assert same(stored(tmp_path, {"original": "a"}, never), known)


def test_a_folder_that_cannot_be_written_is_done_without(known: Statistics, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert same(stored(tmp_path / "file" / "originals", {"original": "a"}, lambda: known), known)


def _one_of_many(folder: Path, noted: Path) -> None:
    def compute() -> Statistics:
        with noted.open("a") as file:
            file.write("computed\n")
        return Statistics(1, {"a": Linear(torch.eye(2), torch.ones(2))}, {})

    assert stored(folder, {"original": "a"}, compute).texts == 1


def test_processes_that_need_the_same_wait_for_the_one_that_computes_them(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_one_of_many, args=(tmp_path, tmp_path / "noted")) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert (tmp_path / "noted").read_text() == "computed\n"
