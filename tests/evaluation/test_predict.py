"""What each task's model is asked and which of its answers count."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from optimizer.data.texts import DataSettings, Texts
from optimizer.evaluation.agreement import IGNORED
from optimizer.evaluation.inputs import Batch, batches, prepare
from optimizer.evaluation.job import Environment
from optimizer.evaluation.models import load_on
from optimizer.evaluation.predict import decision, forward_inputs, next_tokens, predict, valid
from optimizer.model.task import Task

TinyModel = Callable[..., Path]
CPU = Environment(threads=1)
WORDS = ("the cat sees a bird", "the dog", "a big red fish runs")
TOKENS = (7, 4, 7)  # with [CLS] and [SEP]


def batch(directory: Path, task: Task, *texts: str, pad_id: int | None = None) -> Batch:
    found = prepare(directory, task, Texts(texts, None, "", "", DataSettings()), 0)
    return next(batches(found.examples(None), len(texts) or 99, found.pad_id if pad_id is None else pad_id, 1))


@pytest.mark.parametrize(
    ("task", "shape"),
    [
        ("sequence-classification", (3, 3)),
        ("token-classification", (sum(TOKENS), 3)),
        ("question-answering", (3, 2, max(TOKENS))),
        ("masked-lm", (sum(TOKENS), 25)),
        ("causal-lm", (sum(TOKENS) - 2 * len(TOKENS), 25)),
        ("encoder", (3, 32)),
    ],
)
def test_shapes(task: Task, shape: tuple[int, ...], tiny_model: TinyModel) -> None:
    model = load_on(tiny_model(task), task, CPU)
    assert predict(task, model, batch(tiny_model(task), task, *WORDS).inputs).logits.shape == shape


@pytest.mark.parametrize(
    "task", ["sequence-classification", "token-classification", "masked-lm", "causal-lm", "encoder", "seq2seq-lm"]
)
def test_padding_changes_nothing(task: Task, tiny_model: TinyModel) -> None:
    model = load_on(tiny_model(task), task, CPU)
    together = batch(tiny_model(task), task, *WORDS, pad_id=5)
    found = predict(task, model, together.inputs).logits
    alone = [predict(task, model, batch(tiny_model(task), task, WORDS[index]).inputs) for index in together.positions]
    assert torch.allclose(found, torch.cat([prediction.logits for prediction in alone]), atol=1e-3)


def test_images(tiny_model: TinyModel) -> None:
    directory = tiny_model("image-classification")
    model = load_on(directory, "image-classification", CPU)
    inputs = batch(directory, "image-classification").inputs
    assert predict("image-classification", model, inputs).logits.shape == (64, 3)
    half = model.half()
    assert predict("image-classification", half, inputs).logits.dtype == torch.float16


def test_padding_is_not_valid_in_a_span(tiny_model: TinyModel) -> None:
    inputs = batch(tiny_model("question-answering"), "question-answering", *WORDS).inputs
    mask = valid("question-answering", inputs)
    assert mask is not None
    assert mask.sum(-1).tolist() == [[7, 7], [7, 7], [4, 4]]
    assert valid("sequence-classification", inputs) is None


def test_next_tokens_are_the_following_rows_within_each_text(tiny_model: TinyModel) -> None:
    inputs = batch(tiny_model("causal-lm"), "causal-lm", "the cat runs", "the dog").inputs
    the, cat, dog, runs = (2 + ["the", "a", "cat", "dog", "bird", "fish", "sees", "likes", "finds", "runs"].index(word)
                           for word in ("the", "cat", "dog", "runs"))  # fmt: skip
    found = next_tokens("causal-lm", inputs)
    assert found is not None
    assert found.tolist() == [cat, runs, IGNORED, dog, IGNORED]
    assert inputs["input_ids"].tolist() == [[the, cat, runs], [the, dog, 0]]
    assert next_tokens("masked-lm", inputs) is None


def test_sequence_to_sequence_follows_the_originals_greedy_output(tiny_model: TinyModel, tmp_path: Path) -> None:
    task: Task = "seq2seq-lm"
    model = load_on(tiny_model(task), task, CPU)
    inputs = batch(tiny_model(task), task, *WORDS).inputs
    own = predict(task, model, inputs)
    assert own.decoder_ids is not None
    greedy = model.generate(**inputs, max_new_tokens=32, do_sample=False)
    assert torch.equal(own.decoder_ids, greedy)
    tokens = [row[: row.index(0) + 1] if 0 in row else row for row in greedy[:, 1:].tolist()]
    assert own.logits.argmax(-1).tolist() == [token for row in tokens for token in row]

    torch.manual_seed(1)
    other = type(model)(model.config).eval()
    led = predict(task, other, inputs, own.decoder_ids)
    assert led.decoder_ids is own.decoder_ids
    assert led.logits.shape == own.logits.shape


def test_a_generated_text_counts_up_to_its_first_end() -> None:
    class Model(torch.nn.Module):
        device = torch.device("cpu")
        dtype = torch.float32
        generation_config = SimpleNamespace(eos_token_id=[0, 7])

        def forward(self, input_ids: torch.Tensor, decoder_input_ids: torch.Tensor) -> SimpleNamespace:
            return SimpleNamespace(logits=decoder_input_ids.unsqueeze(-1).float())

    ids = torch.tensor([[1, 5, 7, 7, 0], [1, 4, 5, 6, 3], [1, 0, 1, 1, 1]])
    found = predict("seq2seq-lm", Model(), {"input_ids": ids}, ids)
    assert found.logits.flatten().tolist() == [1, 5, 1, 4, 5, 6, 1]


def test_the_decoder_reads_a_blocks_first_tokens(tiny_model: TinyModel) -> None:
    model = load_on(tiny_model("seq2seq-lm"), "seq2seq-lm", CPU)
    block = {"input_ids": torch.arange(100).reshape(2, 50) % 20, "attention_mask": torch.ones(2, 50).long()}
    inputs = forward_inputs("seq2seq-lm", model, block)
    assert torch.equal(inputs["decoder_input_ids"], block["input_ids"][:, :32])
    assert model(**inputs).logits.shape[:2] == (2, 32)


def test_without_a_pooler_the_mean_of_what_is_not_padding(tiny_model: TinyModel, tmp_path: Path) -> None:
    directory = tiny_model("causal-lm", tmp_path / "model")
    from transformers import GPT2Model

    GPT2Model.from_pretrained(directory).save_pretrained(directory)
    model = load_on(directory, "encoder", CPU)
    inputs = batch(directory, "encoder", *WORDS).inputs
    states = model(**inputs).last_hidden_state
    found = predict("encoder", model, inputs).logits
    assert torch.allclose(found[2], states[2, :2].mean(0), atol=1e-5)


def test_of_an_encoder_with_a_decoder_the_encoder(tiny_model: TinyModel, tmp_path: Path) -> None:
    directory = tiny_model("seq2seq-lm", tmp_path / "model")
    from transformers import T5Model

    T5Model.from_pretrained(directory).save_pretrained(directory)
    model = load_on(directory, "encoder", CPU)
    assert predict("encoder", model, batch(directory, "encoder", *WORDS).inputs).logits.shape == (3, 32)


def test_a_classifier_on_a_language_model_takes_batches(tiny_model: TinyModel, tmp_path: Path) -> None:
    directory = tiny_model("causal-lm", tmp_path / "model")
    from transformers import GPT2ForSequenceClassification

    torch.manual_seed(0)
    GPT2ForSequenceClassification.from_pretrained(directory).save_pretrained(directory)
    task: Task = "sequence-classification"
    model = load_on(directory, task, CPU, pad_id=0)
    together = batch(directory, task, *WORDS)
    alone = load_on(directory, task, CPU)
    for row, position in enumerate(together.positions):
        one = predict(task, alone, batch(directory, task, WORDS[position]).inputs).logits
        assert torch.allclose(predict(task, model, together.inputs).logits[row], one[0], atol=1e-4)


@pytest.mark.parametrize(
    ("task", "problem", "labels", "expected"),
    [
        ("sequence-classification", None, 3, "class"),
        ("sequence-classification", "single_label_classification", 2, "class"),
        ("sequence-classification", "multi_label_classification", 3, "set"),
        ("sequence-classification", "multi_label_classification", 1, "set"),
        ("sequence-classification", "regression", 3, "number"),
        ("image-classification", None, 1, "number"),
        ("token-classification", None, 1, "class"),
        ("causal-lm", None, 2, "class"),
        ("encoder", None, 2, "vector"),
    ],
)
def test_decisions(task: Task, problem: str | None, labels: int, expected: str) -> None:
    assert decision(task, SimpleNamespace(problem_type=problem, num_labels=labels)) == expected
