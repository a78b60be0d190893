"""DeBERTa's relative positions as constants: every kind of attention and of position, for every task, at any length."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from families import assert_same_logits, deberta, inputs, logits, reduced
from transformers import DebertaV2ForQuestionAnswering, DebertaV2ForTokenClassification, DebertaV2Model

from optimizer.engines import deberta as reductions
from optimizer.engines.reduce import FIRST_TOKEN, POSITIONS

SHARED = Path(__file__).parent.parent / "../../shared"
SHAPES = [(1, 2), (1, 17), (4, 9), (3, 64)]
ENGINE_SHAPES = [(4, 9), (3, 64)]

KINDS = {
    "as published": {},
    "many rows": {"position_buckets": 40, "max_relative_positions": 80},
    "its own projections": {"share_att_key": False},
    "many rows, its own projections": {"share_att_key": False, "position_buckets": 40, "max_relative_positions": 80},
    "plain positions": {"position_buckets": -1, "max_relative_positions": 12},
    "many plain positions": {"position_buckets": -1},
    "content to position": {"pos_att_type": ["c2p"]},
    "position to content": {"pos_att_type": ["p2c"], "share_att_key": False, "position_buckets": 40},
    "no relative positions": {"relative_attention": False, "position_biased_input": True},
    "neither kind": {"pos_att_type": []},
    "table as it is": {"norm_rel_ebd": "none"},
    "a convolution": {"conv_kernel_size": 3, "conv_act": "gelu"},
    "types of tokens": {"type_vocab_size": 2, "position_biased_input": True},
    "narrow embeddings": {"embedding_size": 32},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_logits_are_those_of_the_model(kind: str) -> None:
    model = deberta(**KINDS[kind])
    module, log = reduced(model)
    assert log.startswith(f"less work: {POSITIONS}, {FIRST_TOKEN} (")
    for texts, tokens in SHAPES:
        assert_same_logits(module, model, texts, tokens)


@pytest.mark.parametrize("kind", ["as published", "many rows", "a convolution"])
def test_an_engine_gives_them_too_at_shapes_it_was_not_converted_with(kind: str) -> None:
    openvino = pytest.importorskip("openvino")
    model = deberta(**KINDS[kind])
    module, _ = reduced(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing: shapes that are the same for all inputs
        graph = openvino.convert_model(module, example_input=inputs(model, 2, 11))
    compiled = openvino.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert [each.get_names() for each in graph.inputs] == [{name} for name in module.inputs]
    # The element-wise gather that no engine vectorizes.
    assert not any(node.get_type_name() == "GatherElements" for node in graph.get_ops())
    for texts, tokens in ENGINE_SHAPES:
        values = inputs(model, texts, tokens)
        (answer,) = compiled({name: value.numpy() for name, value in values.items()}).values()
        torch.testing.assert_close(torch.from_numpy(answer), logits(model, values), rtol=1e-4, atol=1e-4)


def test_texts_beyond_the_farthest_position() -> None:
    for changes in ({"max_relative_positions": 20}, {"position_buckets": 40, "max_relative_positions": 60}):
        model = deberta(**changes, max_position_embeddings=400)
        module, log = reduced(model)
        assert "left out" not in log
        assert_same_logits(module, model, 2, 300)


def test_a_convolution_over_a_single_layer_keeps_all_tokens() -> None:
    model = deberta(conv_kernel_size=3, num_hidden_layers=1)
    module, log = reduced(model)
    assert "left out" not in log
    assert_same_logits(module, model, 3, 9)


@pytest.mark.parametrize(
    ("kind", "task", "names"),
    [
        (DebertaV2ForTokenClassification, "token-classification", ("logits",)),
        (DebertaV2ForQuestionAnswering, "question-answering", ("start_logits", "end_logits")),
        (DebertaV2Model, "encoder", ("last_hidden_state",)),
    ],
)
def test_other_tasks_have_their_positions_folded(kind: Any, task: Any, names: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    model = kind(deberta(num_labels=2).config).eval()
    module, log = reduced(model, task)
    assert log.startswith(f"less work: {POSITIONS} (")
    values = inputs(model, 4, 9)
    seen = values["attention_mask"].bool()
    with torch.no_grad():
        answer, whole = module(**values), model(**values)
    answer = answer if isinstance(answer, tuple) else (answer,)
    for one, name in zip(answer, names, strict=True):
        torch.testing.assert_close(one[seen], whole[name][seen], rtol=1e-5, atol=2e-5)


def test_a_wrong_table_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    right = reductions._rows
    monkeypatch.setattr(reductions, "_rows", lambda attention, far: right(attention, far).flip(0))
    module, log = reduced(deberta())
    assert [line.rpartition(" by ")[0] for line in log.splitlines()] == [
        f"less work: {POSITIONS}, {FIRST_TOKEN}: left out, answers would differ",
        f"less work: {POSITIONS}: left out, answers would differ",
    ]
    assert isinstance(module.model.deberta.encoder, type(deberta().deberta.encoder))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deberta-toxic", "minilm-intents", "bert-intents"])
def test_trained_models(name: str) -> None:
    if not (SHARED / "models").is_dir():
        pytest.skip("needs trained models, which are not shipped")
    from optimizer.model.loading import load

    model = load(SHARED.resolve() / "models" / name)
    module, log = reduced(model)
    assert FIRST_TOKEN in log
    assert "left out" not in log
    for texts, tokens in SHAPES:
        assert_same_logits(module, model, texts, tokens)
