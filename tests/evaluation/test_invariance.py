"""Whether an answer depends on its neighbours, of models that do and models that do not."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig

from optimizer.data.texts import DataSettings, read
from optimizer.evaluation import invariance
from optimizer.evaluation.job import Environment, EvaluationSettings, Job
from optimizer.evaluation.models import sides
from optimizer.evaluation.tally import Figures
from optimizer.model.loading import load
from optimizer.model.task import Task

TinyModel = Callable[..., Path]
TEXTS = ("the cat sees a bird", "the dog", "a big red fish runs now here", "now the bird sleeps", "a")


def measured(original: Path, task: Task, folder: Path, **settings: Any) -> Figures:
    """The figures of a model as its own artifact, on TEXTS."""
    file = folder / "texts.txt"
    file.write_text("\n".join(TEXTS) + "\n")
    texts = read(DataSettings(path=str(file)), is_demo=False)
    asked = EvaluationSettings(**{"batch_size": 2} | settings)
    rest = "", task, texts.source, texts.fingerprint, asked, Environment(threads=1), folder
    one = Job(original, original, *rest)
    return invariance.measure(one, sides(one, texts)[1])


@pytest.mark.parametrize("task", ["sequence-classification", "token-classification", "question-answering"])
def test_torch_answers_each_text_for_itself(tiny_model: TinyModel, tmp_path: Path, task: Task) -> None:
    found: dict[str, Any] = measured(tiny_model(task), task, tmp_path)
    assert 0 <= found["batch_invariance"] < 1e-5
    assert found["batch_changed"] == 0


def test_random_inputs_without_a_tokenizer(tiny_model: TinyModel, tmp_path: Path) -> None:
    found: dict[str, Any] = measured(tiny_model("image-classification"), "image-classification", tmp_path, examples=5)
    assert found["batch_invariance"] < 1e-5


@pytest.mark.parametrize("task", ["encoder", "masked-lm", "causal-lm", "seq2seq-lm"])
def test_what_decides_on_no_label_is_not_asked(tiny_model: TinyModel, tmp_path: Path, task: Task) -> None:
    assert measured(tiny_model(task), task, tmp_path) == {}


class Neighbourly:
    """A model whose logits hold the mean of its whole batch, padding included."""

    main_input_name = "input_ids"
    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, directory: Path) -> None:
        self.config = AutoConfig.from_pretrained(directory)

    def __call__(self, **inputs: torch.Tensor) -> Any:
        ids = inputs["input_ids"].float()
        mean = 1.01 * ids.mean()  # alone, this is the larger one
        own = (ids * inputs["attention_mask"]).sum(1) / inputs["attention_mask"].sum(1)
        return SimpleNamespace(logits=torch.stack([own, mean.expand_as(own), torch.zeros_like(own)], dim=1))


def test_one_that_looks_at_its_neighbours_is_found_out(
    tiny_model: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("optimizer.evaluation.models.load", lambda place, **options: Neighbourly(place))
    found: dict[str, Any] = measured(tiny_model("sequence-classification"), "sequence-classification", tmp_path)
    assert 0.1 < found["batch_invariance"] < 1
    assert found["batch_changed"] > 0


def test_the_share_is_of_the_largest_logit(
    tiny_model: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crowded(Neighbourly):
        """Its second logit is half as large for whoever is not alone."""

        def __call__(self, **inputs: torch.Tensor) -> Any:
            rows = len(inputs["input_ids"])
            logits = np.tile([[4.0, 3.0 if rows == 1 else 1.5]], (rows, 1)).astype(np.float32)
            return SimpleNamespace(logits=torch.from_numpy(logits))

    monkeypatch.setattr("optimizer.evaluation.models.load", lambda place, **options: Crowded(place))
    original = tiny_model("sequence-classification")
    found = measured(original, "sequence-classification", tmp_path, batch_size=5)
    assert found == {"batch_invariance": 1.5 / 4, "batch_changed": 0}


def test_a_sample_is_enough(tiny_model: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def load_it(place: Path, **options: Any) -> Any:
        model = load(place, **options)
        model.register_forward_pre_hook(lambda _, args, given: asked.append(len(given["input_ids"])), with_kwargs=True)
        return model

    monkeypatch.setattr("optimizer.evaluation.models.load", load_it)
    measured(tiny_model("sequence-classification"), "sequence-classification", tmp_path, examples=3)
    assert asked == [1, 1, 1, 2, 1]
