"""Texts in, labels with scores out: a graph with its tokenizer, so that serving needs nothing else."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from optimizer.errors import EvaluationError
from optimizer.model.loading import on_meta
from optimizer.model.task import task_of
from optimizer.model.tokenizer import load_tokenizer, most_tokens, pad_id

Text = str | tuple[str, str]
"""A text, or the two of a pair."""

_TASK = "sequence-classification"
_PIPELINES = {"token-classification": "token-classification", "question-answering": "question-answering"}
_TOKENS_AT_ONCE = 4096  # padding included; more at once are no faster on a CPU


@dataclass(frozen=True)
class Reader:
    """A tokenizer that gives a graph's inputs: those of `names`, at most `length` tokens of a text, padded alike."""

    tokenizer: Any
    names: tuple[str, ...]
    length: int
    pad_id: int

    def read(self, texts: Sequence[Text]) -> dict[str, list[list[int]]]:
        """The tokens of each text by input; `attention_mask` is left to `batch`."""
        pairs = [text for text in texts if not isinstance(text, str)]
        if pairs and (len(pairs) != len(texts) or not all(map(_is_pair, pairs))):
            raise EvaluationError("texts: are neither all texts nor all pairs; write [text, …] or [(first, second), …]")
        first, second = ([pair[0] for pair in pairs], [pair[1] for pair in pairs]) if pairs else (list(texts), None)
        encoded = self.tokenizer(first, second, truncation=True, max_length=self.length, padding=False)
        return {name: encoded[name] for name in ("input_ids", *self.names) if name in encoded}

    def batch(self, read: dict[str, list[list[int]]], chosen: Sequence[int]) -> dict[str, Tensor]:
        """The chosen ones of the texts that were read, `[texts, tokens]`, each input padded at its end."""
        rows = {name: [values[index] for index in chosen] for name, values in read.items()}
        rows["attention_mask"] = [[1] * len(ids) for ids in rows["input_ids"]]
        width = max(1, *map(len, rows["input_ids"]))
        fills = {"input_ids": self.pad_id}
        return {
            name: torch.tensor([[*row, *[fills.get(name, 0)] * (width - len(row))] for row in values])
            for name, values in rows.items()
        }


def _is_pair(text: Any) -> bool:
    return isinstance(text, tuple | list) and len(text) == 2 and all(isinstance(part, str) for part in text)


def reader(directory: Path, names: Sequence[str]) -> Reader:
    """The tokenizer beside a graph that takes inputs of these names.

    Raises EvaluationError for a graph that gives no labels to texts, or has no tokenizer beside it.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(directory, trust_remote_code=False)
    task = task_of(config.to_dict())
    if task != _TASK:
        instead = f'transformers.pipeline("{_PIPELINES[task]}", …)' if task in _PIPELINES else "the model itself"
        raise EvaluationError(f"answer: gives labels to texts ({_TASK}), which {task} does not; call {instead}")
    tokenizer = load_tokenizer(directory)
    if tokenizer is None:
        raise EvaluationError(f"answer: '{directory.name}' has no tokenizer; call the model with tokens")
    length = most_tokens(tokenizer, on_meta(directory, task))
    return Reader(tokenizer, tuple(names), length, pad_id(tokenizer, config.get_text_config()))


def answer(
    model: Callable[..., Any], read_by: Reader, config: Any, texts: Iterable[Text], batch_size: int, top_k: int | None
) -> list[Any]:
    """The answers of a model of this configuration, in the order of the texts; see `Runnable.answer`."""
    if isinstance(texts, str):
        raise EvaluationError("texts: is one text; write answer([text])")
    if batch_size < 1:
        raise EvaluationError(f"batch_size: {batch_size}: should be at least 1")
    asked = list(texts)
    if not asked:
        return []
    read, scores_of = read_by.read(asked), _scoring(config)
    answers: list[Any] = [None] * len(asked)
    for chosen in in_batches([len(ids) for ids in read["input_ids"]], batch_size):
        scores = scores_of(model(**read_by.batch(read, chosen)).logits.float())
        for index, row in zip(chosen, scores, strict=True):
            answers[index] = _labelled(row, config, top_k)
    return answers


def in_batches(lengths: Sequence[int], batch_size: int, tokens: int = _TOKENS_AT_ONCE) -> list[list[int]]:
    """The places of texts of these lengths, longest first, in batches of at most so many texts and so many tokens.

    Padding counts; a text that is longer alone has a batch of its own.
    """
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    batches, start = list[list[int]](), 0
    while start < len(order):
        size = max(1, min(batch_size, tokens // max(1, lengths[order[start]])))
        batches.append(order[start : start + size])
        start += size
    return batches


def _scoring(config: Any) -> Callable[[Tensor], Tensor]:
    """What makes scores of logits, as transformers' text-classification pipeline decides it."""
    if config.problem_type == "regression":
        return lambda logits: logits
    if config.problem_type == "multi_label_classification" or config.num_labels == 1:
        return torch.sigmoid
    return lambda logits: logits.softmax(-1)


def _labelled(scores: Tensor, config: Any, top_k: int | None) -> Any:
    found, places = scores.topk(len(scores) if top_k is None else min(top_k, len(scores)))
    labels = [
        {"label": config.id2label[place], "score": score}
        for score, place in zip(found.tolist(), places.tolist(), strict=True)
    ]
    return labels[0] if top_k == 1 else labels
