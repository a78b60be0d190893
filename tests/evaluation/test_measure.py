"""A job from end to end, in the processes that measure."""

import json
import pickle
import re
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from optimizer.data.texts import DataSettings, Label, Text, read
from optimizer.errors import DataError, EvaluationError, ModelError
from optimizer.evaluation import comparison, latency, memory
from optimizer.evaluation.inputs import prepare
from optimizer.evaluation.job import Environment, EvaluationSettings, Grid
from optimizer.evaluation.measure import FIGURES, Job, evaluate
from optimizer.evaluation.models import sides
from optimizer.evaluation.predict import predict
from optimizer.evaluation.tally import Figures
from optimizer.model.loading import load
from optimizer.model.task import TASKS, Task, task_of
from optimizer.processes import machine

TinyModel = Callable[..., Path]
TEXTS = ("the cat sees a bird", "the dog", "a big red fish runs", "now the bird sleeps here")
LABELS = ("LABEL_0", "LABEL_1", 2, "0")
TIMED = {
    "latency_ms_p50", "latency_ms_p95", "original_latency_ms_p50", "original_latency_ms_p95", "speedup",
    "speedup_low", "speedup_high", "peak_memory_mb", "load_ms", "evaluate_seconds",
}  # fmt: skip
COMMON = {"data", "examples", "counted", "texts_cut", "texts_blank", "evaluate_seconds"}
INVARIANCE = {"batch_invariance", "batch_changed"}
NEIGHBOURS = {"neighbour_agreement", "neighbour_agreement_low", "neighbour_agreement_high", "neighbour_overlap_10"}
QUALITY = {"macro_f1", "matthews", "calibration_error", "accuracy"}
RIGHT = QUALITY | {f"original_{name}" for name in QUALITY} | {"mcnemar_p", "accuracy_drop_low", "accuracy_drop_high"}
SENTENCES = {"sentence_agreement", "sentence_agreement_low", "sentence_agreement_high"}
LOGITS = COMMON | {"max_logit_difference", "mean_logit_difference"}
DECIDED = LOGITS | {"agreement", "agreement_low", "agreement_high", "kl_divergence"}
CLASSES = DECIDED | {"distinct_answers", "original_distinct_answers"}


def job(original: Path, artifact: Path, task: Task, cache: Path, **changes: Any) -> Job:
    settings = EvaluationSettings(**{"repetitions": 0, "batch_size": 2} | changes)
    place = cache.with_name(f"{cache.name}-texts") / "some.jsonl"
    rest = "of the original", task, DataSettings(), "", settings, Environment(threads=1), cache
    return about(Job(original, artifact, *rest), place, TEXTS, LABELS)


def about(one: Job, place: Path, texts: Sequence[Text], labels: Sequence[Label]) -> Job:
    """The job on other texts, written to a file."""
    place.parent.mkdir(exist_ok=True)
    rows = [{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)]
    place.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    found = read(DataSettings(path=str(place)), is_demo=False)
    return replace(one, data=found.source, data_fingerprint=found.fingerprint)


def changed(original: Path, directory: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> Path:
    """A copy of a model with each of its matrices changed."""
    shutil.copytree(original, directory)
    weights = load_file(directory / "model.safetensors")
    weights = {name: change(weight) if weight.dim() > 1 else weight for name, weight in weights.items()}
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def noisy(weight: torch.Tensor) -> torch.Tensor:
    return weight + 0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))


def compare(one: Job) -> Figures:
    """What `evaluate` compares, here instead of in a process of its own."""
    texts = one.read_texts()
    return comparison.compare(one, texts, *sides(one, texts))


def measured(figures: Figures) -> set[str]:
    assert set(figures) == set(FIGURES)
    return {name for name, value in figures.items() if value is not None}


def test_everything_is_measured_in_other_processes(tiny_model: TinyModel, tmp_path: Path) -> None:
    original = tiny_model("sequence-classification")
    one = job(original, changed(original, tmp_path / "artifact", noisy), "sequence-classification", tmp_path / "cache")
    threads = torch.get_num_threads()
    figures: dict[str, Any] = evaluate(replace(one, settings=EvaluationSettings(repetitions=3, length=16)))
    assert measured(figures) == CLASSES | TIMED | INVARIANCE | RIGHT
    assert figures["data"] == "some.jsonl"
    assert figures["examples"] == 4
    assert 0 <= figures["agreement_low"] < figures["agreement"] <= figures["agreement_high"] <= 1
    assert 0 < figures["mean_logit_difference"] < figures["max_logit_difference"]
    assert 0 < figures["latency_ms_p50"] <= figures["latency_ms_p95"]
    assert figures["speedup"] == pytest.approx(figures["original_latency_ms_p50"] / figures["latency_ms_p50"])
    assert 0 < figures["peak_memory_mb"] < 500
    assert figures["load_ms"] > figures["latency_ms_p50"]
    assert torch.get_num_threads() == threads


def test_nothing_to_measure_starts_no_process(
    tiny_model: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("optimizer.processes.process.call", None)
    original = tiny_model("sequence-classification")
    assert measured(evaluate(job(original, original, "sequence-classification", tmp_path, examples=0))) == {
        "evaluate_seconds"
    }


def test_without_examples_only_speed_and_memory(tiny_model: TinyModel, tmp_path: Path) -> None:
    original = tiny_model("causal-lm")
    one = job(original, original, "causal-lm", tmp_path, examples=0, repetitions=2, warmup=0)
    assert measured(evaluate(one)) == TIMED


def test_errors_of_the_child_are_errors_here(tiny_model: TinyModel, tmp_path: Path) -> None:
    original = tiny_model("sequence-classification")
    one = job(original, original, "sequence-classification", tmp_path)
    with pytest.raises(DataError, match="does not know 'never'"):
        evaluate(about(one, tmp_path / "never.jsonl", TEXTS, ("never",) * 4))
    with pytest.raises(EvaluationError, match="'cuda:99' is not there"):
        evaluate(replace(one, environment=Environment(device="cuda:99")))
    artifact = changed(original, tmp_path / "artifact", noisy)
    (artifact / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError) as caught:
        evaluate(job(original, artifact, "sequence-classification", tmp_path))
    assert "\n" not in str(caught.value)


EXPECTED: dict[Task, set[str]] = {
    "sequence-classification": CLASSES | RIGHT,
    "token-classification": CLASSES | SENTENCES,
    "question-answering": DECIDED,
    "image-classification": CLASSES - {"texts_cut", "texts_blank"},
    "seq2seq-lm": CLASSES,
    "speech-seq2seq": CLASSES - {"texts_cut", "texts_blank"} | {"word_error_rate"},
    "masked-lm": CLASSES,
    "causal-lm": CLASSES | {"perplexity", "original_perplexity"},
    "zero-shot-image-classification": CLASSES - {"texts_cut", "texts_blank"},
    "encoder": COMMON | NEIGHBOURS | {"cosine_similarity", "cosine_similarity_p1"},
}


OF_TOKENS = ("masked-lm", "causal-lm", "seq2seq-lm", "speech-seq2seq")
COUNTED = dict.fromkeys(OF_TOKENS, "tokens") | dict.fromkeys(
    ("image-classification", "zero-shot-image-classification"), "images"
)
COUNTED["token-classification"] = "words"


@pytest.mark.parametrize("task", EXPECTED)
def test_a_model_agrees_with_itself_and_less_with_a_changed_one(
    task: Task, tiny_model: TinyModel, tmp_path: Path
) -> None:
    original = tiny_model(task)
    assert task_of(json.loads((original / "config.json").read_text())) == task
    same: dict[str, Any] = compare(job(original, original, task, tmp_path / "cache"))
    assert set(same) | {"evaluate_seconds"} == EXPECTED[task]
    artifact = changed(original, tmp_path / "artifact", noisy)
    other: dict[str, Any] = compare(job(original, artifact, task, tmp_path / "cache"))
    assert other["examples"] == same["examples"] > 0
    assert same["counted"] == COUNTED.get(task, "texts")
    if task == "encoder":
        assert same["cosine_similarity"] == pytest.approx(1)
        assert other["cosine_similarity"] < 0.9999
        return
    assert (same["agreement"], same["max_logit_difference"], same["kl_divergence"]) == (1, 0, 0)
    assert other["max_logit_difference"] > 0
    assert other["kl_divergence"] > 0
    if task == "speech-seq2seq":
        assert (same["word_error_rate"], same["data"]) == (0, "random")
        assert other["word_error_rate"] > 0
    if task == "causal-lm":
        assert same["perplexity"] == same["original_perplexity"] == other["original_perplexity"] > 1
        assert other["perplexity"] != other["original_perplexity"]


def test_every_task_is_covered() -> None:
    assert set(get_args(Task)) == set(TASKS) == {*EXPECTED, "audio-classification"}


def test_sound(tmp_path: Path) -> None:
    from transformers import Wav2Vec2Config, Wav2Vec2ForSequenceClassification

    torch.manual_seed(0)
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    layers = {"conv_dim": (8, 8), "conv_kernel": (10, 8), "conv_stride": (5, 4), "num_feat_extract_layers": 2}
    sound = {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "classifier_proj_size": 8}
    config = Wav2Vec2Config(**small, **layers, **sound, num_labels=3)
    Wav2Vec2ForSequenceClassification(config).save_pretrained(tmp_path / "model")
    figures = compare(job(tmp_path / "model", tmp_path / "model", "audio-classification", tmp_path, examples=2))
    assert (figures["data"], figures["examples"], figures["agreement"]) == ("random", 2, 1)
    assert figures["counted"] == "sounds"


def test_labels_follow_their_texts_through_sorting_and_sampling(tiny_model: TinyModel, tmp_path: Path) -> None:
    task: Task = "sequence-classification"
    original = tiny_model(task)
    one = job(original, original, task, tmp_path)
    from optimizer.evaluation.models import load_on

    model = load_on(original, task, one.environment)
    examples = prepare(original, task, one.read_texts(), 0).examples(None)
    answers = [
        int(predict(task, model, {"input_ids": examples[index]["input_ids"][None]}).logits.argmax())
        for index in range(4)
    ]
    right = about(one, tmp_path / "right.jsonl", TEXTS, answers)
    assert compare(right)["accuracy"] == 1
    assert compare(replace(right, settings=EvaluationSettings(examples=2)))["accuracy"] == 1


def test_numbers_have_no_agreement(tiny_model: TinyModel, tmp_path: Path) -> None:
    original = tiny_model("sequence-classification", tmp_path / "model", num_labels=1)
    figures = compare(job(original, original, "sequence-classification", tmp_path))
    assert set(figures) | {"evaluate_seconds"} == LOGITS | {"spearman", "kendall"}
    assert (figures["spearman"], figures["kendall"]) == (1, 1)


def test_sets_agree_label_by_label(tiny_model: TinyModel, tmp_path: Path) -> None:
    problem = {"problem_type": "multi_label_classification"}
    original = tiny_model("sequence-classification", tmp_path / "model", **problem)
    figures = compare(job(original, original, "sequence-classification", tmp_path))
    assert set(figures) | {"evaluate_seconds"} == DECIDED
    assert figures["agreement"] == 1


def test_random_inputs_are_marked_and_have_no_accuracy(tiny_model: TinyModel, tmp_path: Path) -> None:
    original = tiny_model("sequence-classification", tmp_path / "model")
    for path in original.glob("tokenizer*"):
        path.unlink()
    figures = compare(job(original, original, "sequence-classification", tmp_path))
    assert (figures["data"], figures["examples"]) == ("random", 64)
    assert "accuracy" not in figures


def test_weights_that_no_file_holds_are_the_same_for_both(tiny_model: TinyModel, tmp_path: Path) -> None:
    original = tiny_model("encoder", tmp_path / "model")
    weights = load_file(original / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if not name.startswith("pooler")}
    assert kept.keys() != weights.keys()
    save_file(kept, original / "model.safetensors", metadata={"format": "pt"})
    assert compare(job(original, original, "encoder", tmp_path))["cosine_similarity"] == pytest.approx(1)


@pytest.mark.parametrize("task", ["sequence-classification", "token-classification", "question-answering", "causal-lm"])
def test_answers_that_are_no_numbers_fail_and_say_whose_and_where(
    tiny_model: TinyModel, tmp_path: Path, task: Task
) -> None:
    original = tiny_model(task)
    artifact = changed(original, tmp_path / "artifact", lambda weight: weight * float("nan"))
    with pytest.raises(EvaluationError) as caught:
        compare(job(original, artifact, task, tmp_path / "one"))
    assert re.match(
        r"the artifact answers NaN to (\d+) of \1 examples, the first of them text 1 of \S+; its ", str(caught.value)
    )
    with pytest.raises(EvaluationError, match=r"^the original answers NaN to \d+ of \d+ examples, .*; mend it before"):
        compare(job(artifact, original, task, tmp_path / "other"))


def test_texts_that_were_cut_or_are_blank_are_counted(tiny_model: TinyModel, tmp_path: Path) -> None:
    original = tiny_model("sequence-classification")
    one = job(original, original, "sequence-classification", tmp_path / "cache")
    texts = ["the cat", " ", "the cat sees " * 20, "", "a dog " * 15]
    figures = compare(about(one, tmp_path / "uneven.jsonl", texts, [0, 1, 2, 0, 1]))
    assert (figures["texts_cut"], figures["texts_blank"]) == (1, 2)
    assert compare(one)["texts_cut"] == compare(one)["texts_blank"] == 0


def test_the_text_that_breaks_it_is_named(tiny_model: TinyModel, tmp_path: Path) -> None:
    original = tiny_model("sequence-classification")
    shutil.copytree(original, tmp_path / "artifact")
    weights = load_file(original / "model.safetensors")
    (name,) = (name for name in weights if name.endswith("position_embeddings.weight"))
    weights[name][5:] = float("nan")  # texts of at least six tokens
    save_file(weights, tmp_path / "artifact" / "model.safetensors", metadata={"format": "pt"})
    # One at a time: padding has positions too.
    asked = job(original, tmp_path / "artifact", "sequence-classification", tmp_path / "cache", batch_size=1)
    texts = ["the cat", "a dog", "the cat sees a small bird here now", "the dog"]
    with pytest.raises(
        EvaluationError, match=r"^the artifact answers NaN to 1 of 4 examples, .* text 3 of short\.jsonl;"
    ):
        compare(about(asked, tmp_path / "short.jsonl", texts, [0, 1, 2, 0]))


def test_another_number_of_labels_is_an_error(tiny_model: TinyModel, tmp_path: Path) -> None:
    task: Task = "sequence-classification"
    artifact = tiny_model(task, tmp_path / "artifact", num_labels=5)
    with pytest.raises(EvaluationError, match=r"artifact's answers have the shape \[2, 5\], the original's \[2, 3\]"):
        compare(job(tiny_model(task), artifact, task, tmp_path))


def only(directory: Path) -> Callable[..., Any]:
    """What loads models from this directory alone."""

    def load_it(place: Path, **options: Any) -> Any:
        return load(place, **options) if place == directory else pytest.fail("asked again")

    return load_it


def test_the_original_is_asked_once(tiny_model: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = tiny_model("seq2seq-lm")
    artifact = changed(original, tmp_path / "artifact", noisy)
    one = job(original, artifact, "seq2seq-lm", tmp_path / "cache")
    first = compare(one)
    (kept,) = (tmp_path / "cache").glob("*.safetensors")
    with monkeypatch.context() as patch:
        patch.setattr("optimizer.evaluation.models.load", only(artifact))
        assert compare(one) == first
        with pytest.raises(pytest.fail.Exception, match="asked again"):
            compare(replace(one, fingerprint="of another"))
    kept.write_bytes(kept.read_bytes()[:-1])
    assert compare(one) == first
    assert compare(one) == first
    assert len(list((tmp_path / "cache").glob("*.safetensors"))) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"fingerprint": "of another"},
        {"texts": TEXTS[::-1]},
        {"settings": EvaluationSettings(examples=2)},
        {"settings": EvaluationSettings(batch_size=3)},
        {"environment": Environment(seed=1)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_decides_the_predictions_names_their_file(
    change: dict[str, Any], tiny_model: TinyModel, tmp_path: Path
) -> None:
    original = tiny_model("sequence-classification")
    one = job(original, original, "sequence-classification", tmp_path / "cache", batch_size=2)
    compare(one)
    compare(replace(one, artifact=original))
    assert len(list((tmp_path / "cache").glob("*.safetensors"))) == 1
    if texts := change.pop("texts", None):
        one = about(one, tmp_path / "others.jsonl", texts, LABELS)
    compare(replace(one, **change))
    assert len(list((tmp_path / "cache").glob("*.safetensors"))) == 2


def test_a_cache_that_cannot_be_written_costs_only_time(
    tiny_model: TinyModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("a file where a folder is wanted")
    original = tiny_model("sequence-classification")
    assert compare(job(original, original, "sequence-classification", tmp_path / "cache"))["agreement"] == 1
    assert "the original's predictions are not kept" in caplog.text


def test_latency_waits_until_no_other_run_computes(tiny_model: TinyModel, tmp_path: Path) -> None:
    original = tiny_model("causal-lm")
    one = job(original, original, "causal-lm", tmp_path, examples=0, repetitions=1, warmup=0)
    started = time.perf_counter()
    evaluate(one)
    undisturbed = time.perf_counter() - started
    found: list[float] = []
    measuring = threading.Thread(target=lambda: found.append(evaluate(one)["speedup"]))  # type: ignore[arg-type]
    with machine.shared():
        measuring.start()
        measuring.join(1 + 2 * undisturbed)
        assert measuring.is_alive()
    measuring.join(60)
    assert found[0] > 0


def test_original_and_artifact_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    def one_pass(name: str, seconds: float) -> Callable[[], None]:
        def run() -> None:
            calls.append(name)
            clock[0] += seconds * (10 if len(calls) <= 2 else 1)

        return run

    calls: list[str] = []
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    settings = EvaluationSettings(warmup=1, repetitions=3)
    found = latency.measure(one_pass("original", 0.006), one_pass("artifact", 0.002), settings)
    assert calls == ["original", "artifact", "artifact", "original"] * 2
    figures = {"latency_ms_p50": 2, "latency_ms_p95": 2, "speedup": 3}
    figures |= {"original_latency_ms_p50": 6, "original_latency_ms_p95": 6}
    assert found == pytest.approx(figures | {"speedup_low": 3, "speedup_high": 3})


def test_a_wide_interval_is_narrowed_for_as_long_as_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])

    def timed(seconds: float, noise: float) -> tuple[int, dict[str, Any]]:
        generator = np.random.default_rng(0)
        taken: list[float] = []

        def run() -> None:
            taken.append(seconds * float(generator.lognormal(0, noise)))
            clock[0] += taken[-1]

        found = latency.measure(run, run, EvaluationSettings(warmup=1, repetitions=10))
        return len(taken) // 2 - 1, found

    quiet, _ = timed(0.01, 0.001)
    assert quiet == 10
    noisy, found = timed(0.01, 0.15)
    assert 10 < noisy <= 500
    assert found["speedup_high"] - found["speedup_low"] <= 0.1 * found["speedup_low"]
    before = clock[0]
    slow, found = timed(0.2, 1.0)
    assert 10 < slow < 500
    assert clock[0] - before < 10 + 5  # seconds, and the pair that was under way
    assert found["speedup_low"] < 1 < found["speedup_high"]
    slower, _ = timed(2.0, 1.0)
    assert slower == 10


@pytest.mark.parametrize(
    ("settings", "extent"),
    [
        ({}, "full"),
        ({"repetitions": 3}, "quick"),
        ({"examples": 256}, "quick"),
        ({"examples": 257, "repetitions": 0}, "full"),
        ({"examples": 0, "repetitions": 0}, None),
        ({"examples": 0}, "full"),
    ],
)
def test_what_is_too_little_to_rely_on_is_quick(settings: dict[str, Any], extent: str | None) -> None:
    assert EvaluationSettings(**settings).extent == extent


def test_a_grid_and_a_stream(tiny_model: TinyModel, tmp_path: Path) -> None:
    original = tiny_model("sequence-classification")
    artifact = changed(original, tmp_path / "artifact", noisy)
    grid = Grid(batch_sizes=[1, 3], lengths=[4, 32, 500])
    one = job(original, artifact, "sequence-classification", tmp_path / "cache", examples=0, repetitions=2, grid=grid)
    figures: dict[str, Any] = evaluate(replace(one, settings=one.settings.model_copy(update={"stream": 100})))
    assert measured(figures) == TIMED | {"latency_grid", "texts_per_second", "original_texts_per_second"}
    cells = figures["latency_grid"]
    # The model reads 32 tokens: a longer length is no cell of its own.
    assert [(cell["batch_size"], cell["length"]) for cell in cells] == [(1, 4), (1, 32), (3, 4), (3, 32)]
    for cell in cells:
        assert 0 < cell["latency_ms_p50"] <= cell["latency_ms_p95"]
        assert 0 < cell["original_latency_ms_p50"] <= cell["original_latency_ms_p95"]
        assert cell["speedup_low"] <= cell["speedup"] <= cell["speedup_high"]
    assert all(figures[name] == value for name, value in cells[0].items() if name in figures)
    assert figures["texts_per_second"] > 0


def test_an_engine_chooses_before_it_is_timed_and_each_cell_says_what() -> None:
    calls: list[str] = []

    def cell(name: str, choice: str | None) -> latency.Cell:
        def tune() -> str | None:
            calls.append(f"tune {name}")
            return choice

        return latency.Cell(1, 8, lambda: calls.append("original"), lambda: calls.append(name), tune)

    settings = EvaluationSettings(warmup=0, repetitions=1, grid=Grid(batch_sizes=[1], lengths=[8, 9]))
    figures: dict[str, Any] = latency.measure_cells([cell("one", "2 streams"), cell("other", None)], settings)
    assert calls == ["tune one", "original", "one", "tune other", "original", "other"]
    assert figures["engine_choice"] == "2 streams"
    assert [found["engine_choice"] for found in figures["latency_grid"]] == ["2 streams", None]


def test_a_stream_counts_each_text_once_and_not_the_first_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def one_pass(name: str, seconds: float) -> Callable[[], None]:
        def run() -> None:
            calls.append(name)
            clock[0] += seconds * (100 if calls.count(name) == 1 else 1)

        return run

    calls: list[str] = []
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    pairs = [(one_pass("original 1", 2), one_pass("1", 0.5)), (one_pass("original 2", 3), one_pass("2", 1.5))]
    found = latency.measure_stream(latency.Stream(10, pairs))
    assert calls == ["original 1", "1", "2", "original 2"] * 2
    assert found == pytest.approx({"texts_per_second": 5, "original_texts_per_second": 2})


def test_images_have_no_length(tiny_model: TinyModel, tmp_path: Path) -> None:
    original = tiny_model("image-classification")
    grid = Grid(batch_sizes=[1, 2], lengths=[4, 32])
    one = job(original, original, "image-classification", tmp_path, repetitions=1, grid=grid)
    cells = latency.cells(*sides(one, one.read_texts()), one.settings)
    assert [(cell.batch_size, cell.length) for cell in cells] == [(1, None), (2, None)]


def noisy_times(seed: int, count: int, speedup: float) -> tuple[list[float], list[float]]:
    """Times of pairs on a machine that is now fast, now slow, each a little disturbed."""
    generator = np.random.default_rng(seed)
    machine = generator.lognormal(0, 0.5, count)
    original, artifact = (machine * generator.lognormal(0, 0.05, count) for _ in range(2))
    return list(original), list(artifact / speedup)


def test_the_interval_of_a_speedup_holds_it_in_about_95_of_100_cases() -> None:
    held = 0
    for seed in range(100):
        low, high = latency.speedup_interval(*noisy_times(seed, 20, 1.3))
        held += low <= 1.3 <= high
    assert held >= 85


def test_what_is_faster_beyond_the_noise_is_told_from_what_is_not() -> None:
    low, high = latency.speedup_interval(*noisy_times(0, 50, 2.0))
    assert 1 < low < high
    low, high = latency.speedup_interval(*noisy_times(0, 50, 1.0))
    assert low < 1 < high
    assert latency.speedup_interval([3.0], [2.0]) == (1.5, 1.5)
    assert latency.speedup_interval([3.0, 5.0], [2.0, 1.0]) == latency.speedup_interval([3.0, 5.0], [2.0, 1.0])


def test_texts_that_have_changed_since_are_refused(tiny_model: TinyModel, tmp_path: Path) -> None:
    original = tiny_model("sequence-classification")
    one = job(original, original, "sequence-classification", tmp_path / "cache")
    Path(one.data.path).write_text('{"text": "the cat", "label": "LABEL_0"}\n')
    with pytest.raises(DataError, match=r"^some\.jsonl: has changed since the command began; run the command again"):
        evaluate(one)


def test_a_job_is_small(tiny_model: TinyModel, tmp_path: Path) -> None:
    original = tiny_model("sequence-classification")
    one = job(original, original, "sequence-classification", tmp_path / "cache")
    many = about(one, tmp_path / "many.jsonl", ["the cat sees a bird"] * 5000, ["0"] * 5000)
    assert len(pickle.dumps(many)) < 2000


def renumbered(original: Path, directory: Path) -> Path:
    """A copy of a classifier with its words in another order: other ids, and the embeddings to match."""
    shutil.copytree(original, directory)
    values = json.loads((directory / "tokenizer.json").read_text())
    words = values["model"]["vocab"]
    moved = {index: len(words) - 1 - (index - 5) if index >= 5 else index for index in words.values()}
    values["model"]["vocab"] = {word: moved[index] for word, index in words.items()}
    (directory / "tokenizer.json").write_text(json.dumps(values))
    weights = load_file(directory / "model.safetensors")
    (name,) = (name for name in weights if name.endswith("word_embeddings.weight"))
    order = torch.tensor([moved[index] for index in range(len(words))])
    weights[name] = weights[name][order].contiguous()  # the map is its own inverse
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def test_each_side_reads_by_its_own_tokenizer(tiny_model: TinyModel, tmp_path: Path) -> None:
    task: Task = "sequence-classification"
    original = tiny_model(task)
    one = job(original, renumbered(original, tmp_path / "artifact"), task, tmp_path / "cache")
    figures = compare(one)
    assert (figures["agreement"], figures["max_logit_difference"]) == (1, 0)
    (tmp_path / "artifact" / "tokenizer.json").write_bytes((original / "tokenizer.json").read_bytes())
    assert compare(one)["max_logit_difference"] != 0


def test_answers_in_other_words_cannot_be_compared(tiny_model: TinyModel, tmp_path: Path) -> None:
    original = tiny_model("masked-lm")
    one = job(original, renumbered(original, tmp_path / "artifact"), "masked-lm", tmp_path / "cache")
    with pytest.raises(EvaluationError, match=r"^the artifact's tokenizer gives other tokens than the ori[^\n]*$"):
        compare(one)


def test_a_tokenizer_written_otherwise_is_the_same_one(tiny_model: TinyModel, tmp_path: Path) -> None:
    original = tiny_model("causal-lm")
    artifact = changed(original, tmp_path / "artifact", lambda weight: weight)
    values = json.loads((artifact / "tokenizer.json").read_text())
    (artifact / "tokenizer.json").write_text(json.dumps(values, indent=7))
    assert compare(job(original, artifact, "causal-lm", tmp_path / "cache"))["agreement"] == 1


def test_an_artifact_without_a_tokenizer_is_asked_by_the_originals(tiny_model: TinyModel, tmp_path: Path) -> None:
    original = tiny_model("sequence-classification")
    artifact = changed(original, tmp_path / "artifact", lambda weight: weight)
    for path in artifact.glob("tokenizer*"):
        path.unlink()
    figures = compare(job(original, artifact, "sequence-classification", tmp_path / "cache"))
    assert (figures["data"], figures["agreement"]) == ("some.jsonl", 1)


class Graph:
    """A model that is not torch's, as evaluation sees it: numpy inside, one input, one output."""

    main_input_name = "input_ids"
    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, directory: Path) -> None:
        self.config = AutoConfig.from_pretrained(directory)

    def __call__(self, **inputs: torch.Tensor) -> Any:
        ids = inputs["input_ids"].numpy()
        logits = np.stack([(ids * (column + 1)).sum(1) % 7 for column in range(3)], axis=1)
        return SimpleNamespace(logits=torch.from_numpy(logits.astype(np.float32)))


def test_a_model_that_is_not_torchs_is_measured_too(
    tiny_model: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = tiny_model("sequence-classification")
    artifact = changed(original, tmp_path / "artifact", lambda weight: weight)

    def load_it(place: Path, **options: Any) -> Any:
        return Graph(place) if place == artifact else load(place, **options)

    monkeypatch.setattr("optimizer.evaluation.models.load", load_it)
    one = job(original, artifact, "sequence-classification", tmp_path / "cache", length=8, repetitions=2)
    assert compare(one)["examples"] == 4
    cells = latency.cells(*sides(one, one.read_texts()), one.settings)
    assert latency.measure_cells(cells, one.settings)["latency_ms_p50"] > 0  # type: ignore[operator]
    alone: dict[str, Any] = memory.measure(one)
    assert alone["peak_memory_mb"] >= 0
    assert alone["load_ms"] > 0


def test_what_cannot_write_text_is_no_sequence_to_sequence_model(tiny_model: TinyModel, tmp_path: Path) -> None:
    graph: Any = Graph(tiny_model("sequence-classification"))
    with pytest.raises(EvaluationError, match=r"only torch writes here; write format=dense, or evaluation=none$"):
        predict("seq2seq-lm", graph, {"input_ids": torch.ones(1, 1)})
