"""Which way a batch is run changes no answer; nothing is tried but by `tune`, and few static graphs are kept."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES

pytest.importorskip("openvino", reason="needs the extra openvino")
pytest.importorskip("nncf", reason="needs the extra openvino")

from optimizer.engines import openvino_runnable
from optimizer.engines.openvino import Precision, convert, quantize
from optimizer.engines.openvino_runnable import OpenVINORunnable, Way
from optimizer.engines.reduce import reduce
from optimizer.model.task import Task
from optimizer.processes.processor import processor
from tests.engines.models import calibration, difference, example_inputs, inputs, model_of

KEPT = openvino_runnable._STATIC_GRAPHS
WAYS = [Way(1), Way(1, (1, 1)), Way(2), Way(2, (1, 1))]
"""One of each kind; the shapes are those of the batch at hand."""

Wins = Callable[[Way | None], list[Way]]


@pytest.fixture
def wins(monkeypatch: pytest.MonkeyPatch, small_batches_are_shared: None) -> Wins:
    """`wins(kind)`: contests are won by ways of this kind, by the usual one for None; gives the list of those tried."""

    def kind_that_wins(kind: Way | None) -> list[Way]:
        tried = []

        def is_faster(challenger: Any, champion: Any) -> bool:
            challenger()
            champion()
            way = challenger.args[0]
            tried.append(way)
            return kind is not None and (way.streams, bool(way.shape)) == (kind.streams, bool(kind.shape))

        monkeypatch.setattr(openvino_runnable, "is_faster", is_faster)
        return tried

    return kind_that_wins


Run = Callable[..., OpenVINORunnable]


@pytest.fixture(scope="module")
def runnable(tiny_model: Callable[..., Path]) -> Run:
    """A classifier as it runs on two threads, with these options."""
    model = model_of(tiny_model("sequence-classification"))
    return partial(OpenVINORunnable, convert(model, example_inputs()), model.config, 2)


def static(engine: OpenVINORunnable) -> list[Way]:
    """The static graphs that it holds."""
    return [way for way in engine._requests if way.shape]


@pytest.mark.parametrize("task", ["sequence-classification", "question-answering"])
def test_answers_are_the_same_whichever_way_wins(task: Task, wins: Wins, tiny_model: Callable[..., Path]) -> None:
    model = model_of(tiny_model(task))
    graph = convert(model, example_inputs())
    usual = OpenVINORunnable(graph, model.config, threads=2)
    for kind in WAYS:
        wins(kind)
        engine = OpenVINORunnable(graph, model.config, threads=2)
        for lengths in ([9] * 4, [12, 4, 7]):
            engine.tune(**inputs(lengths))
            # Other texts in a batch of that shape have parts of other lengths, which no static graph is for.
            for given in (inputs(lengths), inputs([1] * (len(lengths) - 1) + [max(lengths)], seed=1)):
                assert difference(engine(**given), usual(**given), given["attention_mask"]) < 1e-4


@pytest.mark.parametrize("precision", ["int8", "int8_weights", "bfloat16"])
def test_static_graphs_of_every_precision_answer_alike(
    precision: Precision, wins: Wins, tmp_path: Path, tiny_model: Callable[..., Path]
) -> None:
    model = model_of(tiny_model("sequence-classification", tmp_path, initializer_range=0.1))
    graph = quantize(convert(model, example_inputs()), precision, calibration())
    engine = OpenVINORunnable(graph, model.config, threads=2)
    given = inputs([12] * 6)
    expected = engine(**given).logits
    wins(Way(2, (3, 12)))
    assert "static 3x12" in engine.tune(**given)
    # What is fused is another choice there, so that bfloat16 is rounded elsewhere, and what int8 makes of that.
    assert (engine(**given).logits - expected).abs().mean() / expected.std() < 0.05


@pytest.mark.parametrize("family", ["deberta-v2", "modernbert", "distilbert"])
def test_graphs_that_follow_the_shape_may_be_static(family: str, wins: Wins) -> None:
    model = FAMILIES[family]()
    exported = reduce(model, "sequence-classification", lambda _: None)
    example = {name: value for name, value in example_inputs().items() if name in exported.inputs}
    engine = OpenVINORunnable(convert(exported, example), model.config, threads=2)
    given = inputs([12] * 4)
    expected = engine(**given).logits
    wins(Way(2, (2, 12)))
    assert engine.tune(**given).startswith("2 streams of 1 thread, static 2x12, ")
    torch.testing.assert_close(engine(**given).logits, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.skipif(
    "avx512_bf16" not in processor()[1], reason="the engine chooses bfloat16 on processors that have it"
)
@pytest.mark.parametrize("wins_in", ["f32", "bf16"])
def test_float32_is_tried_beside_int8_where_the_engine_has_chosen_bfloat16(
    wins_in: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_model: Callable[..., Path]
) -> None:
    tried: list[str | None] = []

    def is_faster(challenger: Any, champion: Any) -> bool:
        tried.append(challenger.args[0].kind)
        return bool(challenger.args[0].kind == wins_in)

    monkeypatch.setattr(openvino_runnable, "is_faster", is_faster)
    model = model_of(tiny_model("sequence-classification", tmp_path, initializer_range=0.1))
    graph = quantize(convert(model, example_inputs()), "int8", calibration())
    engine, given = OpenVINORunnable(graph, model.config, 2), inputs([12] * 4)
    before = engine(**given).logits
    assert engine.tune(**given).endswith(f", {wins_in}")
    assert tried[-1] == "f32"
    exact = OpenVINORunnable(graph, model.config, 2, inference_precision="f32")(**given).logits
    assert torch.equal(engine(**given).logits, exact if wins_in == "f32" else before)
    assert not torch.equal(exact, before)
    assert torch.equal(
        engine(**inputs([5] * 4)).logits, OpenVINORunnable(graph, model.config, 2)(**inputs([5] * 4)).logits
    )
    said = OpenVINORunnable(graph, model.config, 2, inference_precision="bf16")
    tried.clear()
    said.tune(**given)
    assert "f32" not in tried, "what a recipe says is not tried"


def test_nothing_is_tried_unasked(wins: Wins, runnable: Run) -> None:
    engine = runnable()
    tried = wins(Way(2, (1, 1)))
    for _ in range(40):
        engine(**inputs([6, 6]))
    assert not tried
    engine.tune(**inputs([6, 6]))
    assert tried == [Way(1), Way(2, (1, 6)), Way(1, (2, 6))]
    assert static(engine) == [Way(2, (1, 6))]


@pytest.mark.parametrize(("streams", "expected"), [(1, Way(1, (2, 6))), (2, Way(2, (1, 6)))])
def test_streams_that_are_given_are_not_tried(streams: int, expected: Way, wins: Wins, runnable: Run) -> None:
    engine = runnable(streams=streams)
    tried = wins(None)
    engine.tune(**inputs([6, 6]))
    assert tried == [expected]
    assert static(engine) == []


def test_few_static_graphs_are_kept_those_used_last(wins: Wins, runnable: Run) -> None:
    engine = runnable()
    wins(Way(1, (1, 1)))
    for length in range(3, 3 + KEPT):
        engine.tune(**inputs([length]))
    engine(**inputs([3]))
    engine.tune(**inputs([20]))
    assert sorted(way.shape[1] for way in static(engine) if way.shape) == [3, *range(5, 3 + KEPT), 20]
    assert engine(**inputs([4])).logits.isfinite().all()


def test_what_loses_is_let_go(wins: Wins, runnable: Run) -> None:
    engine = runnable()
    given = inputs([6, 6])
    wins(Way(1, (1, 1)))
    assert engine.tune(**given) == "1 stream of 2 threads, static 2x6, f32"
    assert list(engine._requests) == [Way(1, (2, 6))]
    wins(Way(1))
    assert engine.tune(**given) == "1 stream of 2 threads, dynamic, f32"
    assert list(engine._requests) == [Way(1)]
    wins(None)
    assert engine.tune(**given) == "2 streams of 1 thread, dynamic, f32"
    assert set(engine._requests) == {Way(1), Way(2)}


def test_a_graph_that_cannot_have_the_shape_stays_as_it_is(
    wins: Wins, monkeypatch: pytest.MonkeyPatch, runnable: Run
) -> None:
    engine = runnable()
    wins(Way(1, (1, 1)))
    ready = engine._ready

    def refuses(way: Way) -> Any:
        if way.shape:
            raise RuntimeError("no such shape")
        return ready(way)

    monkeypatch.setattr(engine, "_ready", refuses)
    assert engine.tune(**inputs([6])) == "1 stream of 2 threads, dynamic, f32"


def test_static_graphs_are_cached_too(wins: Wins, tmp_path: Path, runnable: Run) -> None:
    wins(Way(1, (1, 1)))
    counts = []
    for _ in range(2):
        engine = runnable(cache_dir=tmp_path, streams=1)
        engine.tune(**inputs([6, 6]))
        counts.append(len(list(tmp_path.glob("*.blob"))))
    assert counts == [2, 2]


def test_threads_may_call_at_once(wins: Wins, runnable: Run) -> None:
    engine = runnable()
    wins(Way(2, (1, 1)))
    engine.tune(**inputs([6, 6]))
    asked = [inputs([6, 6] if turn % 2 else [4 + turn % 5, 3], seed=turn) for turn in range(64)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda given: engine(**given).logits, asked))
    for given, logits in zip(asked, found, strict=True):
        torch.testing.assert_close(logits, engine(**given).logits, atol=1e-5, rtol=1e-5)
