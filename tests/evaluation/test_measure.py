"""A job from end to end, in the processes that measure."""

import json
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load_file, save_file

from optimizer.errors import DataError, EvaluationError, ProcessError
from optimizer.evaluation import comparison, latency
from optimizer.evaluation.inputs import prepare
from optimizer.evaluation.job import Environment, EvaluationSettings
from optimizer.evaluation.measure import FIGURES, Job, evaluate
from optimizer.evaluation.models import Pair, on_meta
from optimizer.evaluation.tally import Figures
from optimizer.evaluation.texts import Texts
from optimizer.model.task import TASKS, Task, task_of
from optimizer.processes import machine

TinyModel = Callable[..., Path]
TEXTS = Texts(
    texts=("the cat sees a bird", "the dog", "a big red fish runs", "now the bird sleeps here"),
    labels=("LABEL_0", "LABEL_1", 2, "0"),
    name="some.jsonl",
    fingerprint="of the texts",
)
TIMED = {
    "latency_ms_p50", "latency_ms_p95", "original_latency_ms_p50", "speedup", "peak_memory_mb", "evaluate_seconds",
}  # fmt: skip
COMMON = {"data", "examples", "evaluate_seconds"}
LOGITS = COMMON | {"max_logit_difference", "mean_logit_difference"}
CLASSES = LOGITS | {"agreement", "agreement_low", "agreement_high", "kl_divergence"}


def job(original: Path, artifact: Path, task: Task, cache: Path, **changes: Any) -> Job:
    settings = EvaluationSettings(**{"repetitions": 0, "batch_size": 2} | changes)
    return Job(original, artifact, "of the original", task, TEXTS, settings, Environment(threads=1), cache)


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
    inputs = prepare(on_meta(one.original, one.task), one.original, one.texts, one.environment.seed)
    return comparison.compare(one, inputs, Pair(one.original, one.artifact, one.task, one.environment, inputs.pad_id))


def measured(figures: Figures) -> set[str]:
    assert set(figures) == set(FIGURES)
    return {name for name, value in figures.items() if value is not None}


def test_everything_is_measured_in_other_processes(tiny_model: TinyModel, tmp_path: Path) -> None:
    original = tiny_model("sequence-classification")
    one = job(original, changed(original, tmp_path / "artifact", noisy), "sequence-classification", tmp_path / "cache")
    threads = torch.get_num_threads()
    figures: dict[str, Any] = evaluate(replace(one, settings=EvaluationSettings(repetitions=3, length=16)))
    assert measured(figures) == CLASSES | TIMED | {"accuracy", "original_accuracy"}
    assert figures["data"] == "some.jsonl"
    assert figures["examples"] == 4
    assert 0 <= figures["agreement_low"] < figures["agreement"] <= figures["agreement_high"] <= 1
    assert 0 < figures["mean_logit_difference"] < figures["max_logit_difference"]
    assert 0 < figures["latency_ms_p50"] <= figures["latency_ms_p95"]
    assert figures["speedup"] == pytest.approx(figures["original_latency_ms_p50"] / figures["latency_ms_p50"])
    assert 0 < figures["peak_memory_mb"] < 500
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
        evaluate(replace(one, texts=replace(TEXTS, labels=("never",) * 4)))
    with pytest.raises(EvaluationError, match="'cuda:99' is not there"):
        evaluate(replace(one, environment=Environment(device="cuda:99")))
    artifact = changed(original, tmp_path / "artifact", noisy)
    (artifact / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ProcessError) as caught:
        evaluate(job(original, artifact, "sequence-classification", tmp_path))
    assert "\n" not in str(caught.value)


EXPECTED: dict[Task, set[str]] = {
    "sequence-classification": CLASSES | {"accuracy", "original_accuracy"},
    "token-classification": CLASSES,
    "question-answering": CLASSES,
    "image-classification": CLASSES,
    "seq2seq-lm": CLASSES,
    "masked-lm": CLASSES,
    "causal-lm": CLASSES | {"perplexity", "original_perplexity"},
    "encoder": COMMON | {"cosine_similarity"},
}


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
    if task == "encoder":
        assert same["cosine_similarity"] == pytest.approx(1)
        assert other["cosine_similarity"] < 0.9999
        return
    assert (same["agreement"], same["max_logit_difference"], same["kl_divergence"]) == (1, 0, 0)
    assert other["max_logit_difference"] > 0
    assert other["kl_divergence"] > 0
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


def test_labels_follow_their_texts_through_sorting_and_sampling(tiny_model: TinyModel, tmp_path: Path) -> None:
    task: Task = "sequence-classification"
    original = tiny_model(task)
    one = job(original, original, task, tmp_path)
    from optimizer.evaluation.models import load_on
    from optimizer.evaluation.predict import predict

    model = load_on(original, task, one.environment)
    examples = prepare(on_meta(original, task), original, TEXTS, 0).examples(None)
    answers = [
        int(predict(task, model, {"input_ids": examples[index]["input_ids"][None]}).logits.argmax())
        for index in range(4)
    ]
    right = replace(one, texts=replace(TEXTS, labels=tuple(answers)))
    assert compare(right)["accuracy"] == 1
    assert compare(replace(right, settings=EvaluationSettings(examples=2)))["accuracy"] == 1


def test_numbers_have_no_agreement(tiny_model: TinyModel, tmp_path: Path) -> None:
    original = tiny_model("sequence-classification", tmp_path / "model", num_labels=1)
    figures = compare(job(original, original, "sequence-classification", tmp_path))
    assert set(figures) | {"evaluate_seconds"} == LOGITS


def test_sets_agree_label_by_label(tiny_model: TinyModel, tmp_path: Path) -> None:
    problem = {"problem_type": "multi_label_classification"}
    original = tiny_model("sequence-classification", tmp_path / "model", **problem)
    figures = compare(job(original, original, "sequence-classification", tmp_path))
    assert set(figures) | {"evaluate_seconds"} == CLASSES
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


def test_an_artifact_with_nans_does_not_agree(tiny_model: TinyModel, tmp_path: Path) -> None:
    original = tiny_model("sequence-classification")
    artifact = changed(original, tmp_path / "artifact", lambda weight: weight * float("nan"))
    figures = compare(job(original, artifact, "sequence-classification", tmp_path))
    assert figures["agreement"] == 0
    assert figures["accuracy"] == 0


def test_another_number_of_labels_is_an_error(tiny_model: TinyModel, tmp_path: Path) -> None:
    task: Task = "sequence-classification"
    artifact = tiny_model(task, tmp_path / "artifact", num_labels=5)
    with pytest.raises(EvaluationError, match=r"artifact's answers have the shape \[2, 5\], the original's \[2, 3\]"):
        compare(job(tiny_model(task), artifact, task, tmp_path))


def test_the_original_is_asked_once(tiny_model: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = tiny_model("seq2seq-lm")
    artifact = changed(original, tmp_path / "artifact", noisy)
    one = job(original, artifact, "seq2seq-lm", tmp_path / "cache")
    first = compare(one)
    (kept,) = (tmp_path / "cache").glob("*.safetensors")
    with monkeypatch.context() as patch:
        patch.setattr(Pair, "original", property(lambda self: pytest.fail("asked again")))
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
        {"texts": replace(TEXTS, fingerprint="of others")},
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
    class Model:
        device, dtype = torch.device("cpu"), torch.float32

        def __init__(self, name: str, seconds: float) -> None:
            self.name, self.seconds = name, seconds

        def __call__(self, input_ids: torch.Tensor) -> None:
            calls.append(self.name)
            clock[0] += self.seconds * (10 if len(calls) <= 2 else 1)

    calls: list[str] = []
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    pair: Any = type("", (), {"original": Model("original", 0.006), "artifact": Model("artifact", 0.002)})
    settings = EvaluationSettings(warmup=1, repetitions=3)
    found = latency.measure(pair, "sequence-classification", {"input_ids": torch.ones(1, 1)}, settings)
    assert calls == ["original", "artifact", "artifact", "original"] * 2
    assert found == pytest.approx(
        {"latency_ms_p50": 2, "latency_ms_p95": 2, "original_latency_ms_p50": 6, "speedup": 3}
    )
