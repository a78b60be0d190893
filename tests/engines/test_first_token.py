"""The last layer for the first token alone: the same logits in every family, in torch and out of an engine's graph."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES, assert_same_logits, bert, inputs, logits, modernbert, reduced
from torch import nn

from optimizer.engines.reduce import FIRST_TOKEN, MASKS, Exported, reduce

SHAPES = [(1, 2), (1, 17), (4, 9), (3, 64)]
ENGINE_SHAPES = [(4, 9), (3, 64)]


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest) -> Any:
    return FAMILIES[request.param]()


def test_the_logits_are_those_of_the_model(model: Any) -> None:
    module, log = reduced(model)
    assert FIRST_TOKEN in log
    assert "left out" not in log
    for texts, tokens in SHAPES:
        assert_same_logits(module, model, texts, tokens)


@pytest.mark.parametrize("family", ["bert", "distilbert", "mpnet", "albert", "modernbert, local at the end"])
def test_an_engine_gives_them_too_at_shapes_it_was_not_converted_with(family: str) -> None:
    openvino = pytest.importorskip("openvino")
    model = FAMILIES[family]()
    module, _ = reduced(model)
    token_types = "token_type_ids" in module.inputs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing: shapes that are the same for all inputs
        graph = openvino.convert_model(module, example_input=inputs(model, 2, 11, token_types))
    assert [each.get_names() for each in graph.inputs] == [{name} for name in module.inputs]
    compiled = openvino.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for texts, tokens in ENGINE_SHAPES:
        values = inputs(model, texts, tokens, token_types)
        (answer,) = compiled({name: value.numpy() for name, value in values.items()}).values()
        torch.testing.assert_close(torch.from_numpy(answer), logits(model, values), rtol=1e-4, atol=1e-4)


def test_the_last_layer_works_for_one_token(model: Any) -> None:
    seen: dict[bool, int] = {}
    module, _ = reduced(model)
    plain = Exported(model, "sequence-classification")
    for reduction, each in ((False, plain), (True, module)):
        counts: list[int] = []
        handles = [
            part.register_forward_hook(lambda _, given, __, counts=counts: counts.append(given[0].numel()))
            for part in each.modules()
            if isinstance(part, nn.Linear)
        ]
        with torch.no_grad():
            each(**inputs(model, 1, 32))
        for handle in handles:
            handle.remove()
        seen[reduction] = sum(counts)
    assert seen[True] < 0.85 * seen[False]


def test_the_model_is_left_as_it_is_and_shares_its_weights(model: Any) -> None:
    before = {name: (id(part), type(part)) for name, part in model.named_modules()}
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    module, _ = reduced(model)
    assert {name: (id(part), type(part)) for name, part in model.named_modules()} == before
    # The two views of ModernBERT's one matrix begin inside it.
    new = {parameter.data_ptr() for parameter in module.parameters()} - weights
    assert len(new) <= 2
    assert {storage(each) for each in module.parameters()} <= {storage(each) for each in model.parameters()}


def test_no_module_is_left_in_training_mode(model: Any) -> None:
    module, _ = reduced(model)
    assert not any(part.training for part in (*module.modules(), *model.modules()))


def test_an_export_to_onnx_does_not_wake_the_dropout_of_the_model(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    model = bert()
    module, _ = reduced(model)
    values = inputs(model, 2, 11, token_types=True)
    before = logits(model, values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, tuple(values.values()), str(tmp_path / "model.onnx"), input_names=list(module.inputs), dynamo=False
        )
    assert torch.equal(logits(model, values), before)
    (answer,) = runtime.InferenceSession(tmp_path / "model.onnx").run(None, {k: v.numpy() for k, v in values.items()})
    torch.testing.assert_close(torch.from_numpy(answer), before, rtol=1e-4, atol=1e-4)


def storage(parameter: nn.Parameter) -> int:
    return parameter.untyped_storage().data_ptr()


def test_masks_stay_finite_in_half_the_bits() -> None:
    # Padding far from any text sees nothing at all: minus infinity in every place would make the whole answer NaN.
    openvino = pytest.importorskip("openvino")
    model = modernbert()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = openvino.convert_model(reduced(model)[0], example_input=inputs(model, 2, 11))
    compiled = openvino.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})
    values = inputs(model, 4, 64)
    (answer,) = compiled({name: value.numpy() for name, value in values.items()}).values()
    torch.testing.assert_close(torch.from_numpy(answer), logits(model, values), rtol=0.1, atol=0.3)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_masks_of_either_attention(attention: str) -> None:
    for make in (bert, modernbert):
        model = make(attn_implementation=attention)
        module, log = reduced(model)
        assert "left out" not in log
        assert_same_logits(module, model, 4, 9)


def test_a_head_that_reads_all_tokens_is_found_out() -> None:
    model = modernbert(classifier_pooling="mean")
    module, log = reduced(model)
    first, second = log.splitlines()
    assert first.startswith(f"less work: {MASKS}, {FIRST_TOKEN}: left out, answers would differ by ")
    assert second.startswith(f"less work: {MASKS} (")
    assert_same_logits(module, model, 4, 9)


def test_a_head_that_reads_another_token_is_found_out() -> None:
    model = bert()
    pooler = model.bert.pooler
    pooler.forward = lambda states: torch.tanh(pooler.dense(states[:, -1]))
    module, log = reduced(model)
    assert "left out, answers would differ by" in log
    assert torch.equal(module(**inputs(model, 2, 5)), logits(model, inputs(model, 2, 5)))


def test_a_family_that_changed_is_left_alone() -> None:
    model = bert()
    layer = model.bert.encoder.layer[-1]
    layer.renamed, layer.intermediate = layer.intermediate, None
    layer.feed_forward_chunk = lambda states: layer.output(layer.renamed(states), states)
    module, log = reduced(model)
    assert log.startswith(f"less work: {FIRST_TOKEN}: left out, AttributeError: ")
    values = inputs(model, 2, 5)
    assert torch.equal(module(**values), logits(model, values))


def test_an_unknown_family_goes_through_untouched() -> None:
    model = bert()
    model.config.model_type = "bert-of-tomorrow"
    module, log = reduced(model)
    assert log == "less work: nothing is known to be left out of a 'bert-of-tomorrow' model for sequence-classification"
    assert module.model is model
    values = inputs(model, 2, 5)
    assert torch.equal(module(**values), logits(model, values))


def test_other_tasks_of_a_family_keep_all_tokens() -> None:
    from transformers import BertForQuestionAnswering, BertForTokenClassification

    config = bert(num_labels=2).config
    for kind, task, names in (
        (BertForTokenClassification, "token-classification", ("logits",)),
        (BertForQuestionAnswering, "question-answering", ("start_logits", "end_logits")),
    ):
        model = kind(config).eval()
        lines: list[str] = []
        module = reduce(model, task, lines.append)
        assert module.outputs == names
        assert "nothing is known" in lines[0]
        values = inputs(model, 2, 6)
        with torch.no_grad():
            answer, whole = module(**values), model(**values)
        answer = answer if isinstance(answer, tuple) else (answer,)
        for one, name in zip(answer, names, strict=True):
            assert torch.equal(one, whole[name])
