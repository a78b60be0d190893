"""Neurons and heads that nothing reads are left out: the same answers from narrower matrices, in every family."""

import re
import warnings
from typing import Any

import pytest
import torch
from families import FAMILIES, assert_same_logits, bert, deberta, inputs, logits, reduced
from torch import nn

from optimizer.engines.engine_codes import narrowed_codes
from optimizer.engines.reduce import FIRST_TOKEN, UNREAD
from optimizer.engines.unread import Selection
from optimizer.model.task import Task
from optimizer.model.weight import Codes

# Of each family: the neurons' and the heads' readers, as they end; None where heads stay.
READERS = {
    "distilbert": (".ffn.lin2", ".attention.out_lin"),
    "albert": (".ffn_output", ".attention.dense"),
    "mpnet": (".output.dense", None),
    "modernbert": (".mlp.Wo", ".attn.Wo"),
}
LIKE_BERT = (r"\.\d+.output.dense", ".attention.output.dense")
HEAD = 16  # columns of a head of the tiny models
NEURONS = 96  # of a layer


def with_zeros(model: Any, family: str) -> Any:
    """The model with zeros for what reads 7 neurons of the first layer, all neurons and two heads of the others."""
    neurons, heads = READERS.get(family.partition(",")[0], LIKE_BERT)
    for reader, first, later, size in ((neurons, 7, NEURONS, 1), (heads, 0, 2, HEAD)):
        found = [
            part
            for name, part in model.named_modules()
            if reader and re.search(f"{reader}$", name) and isinstance(part, nn.Linear)
        ]
        for number, part in enumerate(found):
            part.weight.data[:, : (later if number else first) * size] = 0
    return model


def widths(module: Any) -> list[tuple[int, int]]:
    return sorted({tuple(part.weight.shape) for part in module.modules() if isinstance(part, nn.Linear)})


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_answers_are_those_of_the_model_from_narrower_matrices(family: str) -> None:
    model = with_zeros(FAMILIES[family](), family)
    before = {name: (id(part), tuple(part.shape)) for name, part in model.named_parameters()}
    module, log = reduced(model)
    # Layers but the first have all their neurons removed, and keep one.
    (neurons, *heads) = re.findall(r"(\d+) of (\d+) (?:neurons|heads)", log)
    layers = int(neurons[1]) // NEURONS
    assert neurons == (str(7 + 95 * (layers - 1)), str(NEURONS * layers))
    assert heads == ([] if layers == 1 or family == "mpnet" else [(str(2 * (layers - 1)), str(4 * layers))])
    assert f" {UNREAD} are left out (answers differ by " in log.splitlines()[0]
    assert FIRST_TOKEN in log.splitlines()[1]
    for texts, tokens in ((1, 2), (4, 9), (3, 64)):
        assert_same_logits(module, model, texts, tokens)
    assert {name: (id(part), tuple(part.shape)) for name, part in model.named_parameters()} == before
    parts = 2 if "modernbert" in family else 1
    shapes = widths(module)
    assert {(64, 89), (parts * 89, 64)} <= set(shapes)
    assert layers == 1 or {(64, 1), (parts, 64)} <= set(shapes)
    assert layers == 1 or family == "mpnet" or (64, 32) in shapes
    assert not any(part.training for part in (*module.modules(), *model.modules()))


def test_an_engine_s_graph_has_them_and_answers_as_the_model(family: str) -> None:
    openvino = pytest.importorskip("openvino")
    model = with_zeros(FAMILIES[family](), family)
    module, _ = reduced(model)
    token_types = "token_type_ids" in module.inputs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing
        graph = openvino.convert_model(module, example_input=inputs(model, 2, 11, token_types))
    shapes = {tuple(node.shape) for node in graph.get_ordered_ops() if node.get_type_name() == "Constant"}
    assert (64, 89) in shapes
    assert (64, NEURONS) not in shapes
    compiled = openvino.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for texts, tokens in ((4, 9), (3, 64)):
        values = inputs(model, texts, tokens, token_types)
        (answer,) = compiled({name: value.numpy() for name, value in values.items()}).values()
        torch.testing.assert_close(torch.from_numpy(answer), logits(model, values), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("changes", [{}, {"share_att_key": False}, {"pos_att_type": ["c2p"], "share_att_key": False}])
def test_positions_of_fewer_heads(changes: dict[str, Any]) -> None:
    model = with_zeros(deberta(**changes), "deberta-v2")
    module, log = reduced(model)
    assert "heads that nothing reads are left out" in log
    assert FIRST_TOKEN in log
    assert_same_logits(module, model, 4, 33)


@pytest.mark.parametrize(
    ("kind", "task"),
    [
        ("BertForTokenClassification", "token-classification"),
        ("BertForQuestionAnswering", "question-answering"),
        ("BertModel", "encoder"),
    ],
)
def test_any_task(kind: str, task: Task) -> None:
    import transformers

    torch.manual_seed(0)
    model = with_zeros(getattr(transformers, kind)(bert(num_labels=2).config).eval(), "bert")
    module, log = reduced(model, task)
    assert log.startswith("less work: 102 of 192 neurons and 2 of 8 heads that nothing reads are left out (")
    assert "nothing is known" not in log
    values = inputs(model, 3, 9)
    with torch.no_grad():
        answer, whole = module(**values), model(**values)
    said = values["attention_mask"].bool()
    for one, name in zip(answer if isinstance(answer, tuple) else (answer,), module.outputs, strict=True):
        pair = [each[said] if each.shape[:2] == said.shape else each for each in (one, whole[name])]
        torch.testing.assert_close(*pair, rtol=1e-5, atol=2e-5)


def test_zeros_here_and_there_are_nobody_s_absence(family: str) -> None:
    model = FAMILIES[family]()
    for parameter in model.parameters():
        parameter.data[torch.rand(parameter.shape, generator=torch.Generator().manual_seed(0)) < 0.5] = 0
    module, log = reduced(model)
    assert UNREAD not in log
    assert module.selections == ()


def test_what_does_not_answer_the_same_is_left_out() -> None:
    model = with_zeros(bert(), "bert")
    layer = model.bert.encoder.layer[0]
    # A neuron's answer depends on the others.
    layer.intermediate.intermediate_act_fn = nn.Softmax(-1)
    layer.output.dense.weight.data *= 30
    module, log = reduced(model)
    assert "102 of 192 neurons and 2 of 8 heads that nothing reads: left out, answers would differ by" in log
    assert FIRST_TOKEN in log
    assert module.selections == ()
    assert_same_logits(module, model, 2, 5)


def test_an_int8_graph_can_be_made_of_one_neuron() -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    from optimizer.engines.openvino import convert, quantize
    from optimizer.engines.openvino_runnable import OpenVINORunnable

    model = with_zeros(bert(), "bert")
    module, _ = reduced(model)
    graph = convert(module, inputs(model, 2, 8, token_types=True))
    graph = quantize(graph, "int8", [inputs(model, 1, 5 + i, token_types=True) for i in range(8)])
    values = inputs(model, 4, 9, token_types=True)
    answer = OpenVINORunnable(graph, model.config, threads=1)(**values).logits
    assert torch.nn.functional.cosine_similarity(answer, logits(model, values)).min() > 0.9


@pytest.mark.parametrize("scale", [(), (4, 1), (4, 2, 1)])
def test_codes_are_selected_as_their_matrix_was(scale: tuple[int, ...]) -> None:
    draw = torch.Generator().manual_seed(0)
    codes = Codes(torch.randint(-9, 9, (4, 6), generator=draw), torch.rand(scale, generator=draw) + 0.1, torch.bfloat16)
    matrix = codes.restore().float()
    rows, columns = torch.tensor([0, 3]), torch.tensor([1, 2, 5])
    whole, fewer_rows, *fewer = narrowed_codes(
        [codes], [Selection(matrix, rows, None), Selection(matrix, None, columns), Selection(matrix + 1, rows, None)]
    )
    assert whole is codes
    assert torch.equal(fewer_rows.restore().float(), matrix[rows])
    # A group of columns would lose some of them.
    assert len(fewer) == (len(scale) < 3)
    assert all(torch.equal(one.restore().float(), matrix[:, columns]) for one in fewer)
