"""Texts in, answers out: a graph with its tokenizer, so that serving needs nothing else."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from optimizer.engines.spans import best_span
from optimizer.errors import EvaluationError
from optimizer.model.loading import on_meta
from optimizer.model.task import Task, task_of
from optimizer.model.tokenizer import load_tokenizer, most_tokens, pad_id

Text = str | tuple[str, str]
"""A text, or the two of a pair."""

_TOKENS_AT_ONCE = 4096  # padding included; more at once are no faster on a CPU


@dataclass(frozen=True)
class Reader:
    """A tokenizer that gives a graph's inputs: those of `names`, at most `length` tokens of a text, padded alike.

    `task` is what the graph answers: a question with its context is cut in the context alone.
    """

    task: Task
    tokenizer: Any
    names: tuple[str, ...]
    length: int
    pad_id: int

    def read(self, texts: Sequence[Text]) -> Any:
        """The tokenizer's own encoding of the texts, without padding."""
        pairs = [text for text in texts if not isinstance(text, str)]
        if pairs and (len(pairs) != len(texts) or not all(map(_is_pair, pairs))):
            raise EvaluationError("texts: are neither all texts nor all pairs; write [text, …] or [(first, second), …]")
        first, second = ([pair[0] for pair in pairs], [pair[1] for pair in pairs]) if pairs else (list(texts), None)
        if self.task != "question-answering":
            return self.tokenizer(first, second, truncation=True, max_length=self.length, padding=False)
        if second is None:
            raise EvaluationError("texts: are no pairs, but questions need contexts; write [(question, context), …]")
        cut: dict[str, Any] = {"truncation": "only_second", "max_length": self.length}
        return self.tokenizer(first, second, padding=False, return_offsets_mapping=True, **cut)

    def batch(self, read: Mapping[str, Any], chosen: Sequence[int]) -> dict[str, Tensor]:
        """The chosen ones of the texts that were read, `[texts, tokens]`, each input padded at its end."""
        rows = {name: [read[name][index] for index in chosen] for name in ("input_ids", *self.names) if name in read}
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

    Raises EvaluationError for a graph that answers no texts, or has no tokenizer beside it.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(directory, trust_remote_code=False)
    task = task_of(config.to_dict())
    if task not in _ANSWERS:
        raise EvaluationError(f"answer: gives labels or spans, which {task} does not; call the model itself")
    tokenizer = load_tokenizer(directory)
    if tokenizer is None:
        raise EvaluationError(f"answer: '{directory.name}' has no tokenizer; call the model with tokens")
    length = most_tokens(tokenizer, on_meta(directory, task))
    tokenizer.model_max_length = length  # pipelines cut texts by it
    return Reader(task, tokenizer, tuple(names), length, pad_id(tokenizer, config.get_text_config()))


def answer(model: Any, read_by: Reader, texts: Iterable[Text], batch_size: int, top_k: int | None) -> list[Any]:
    """The answers of a model, in the order of the texts; see `Runnable.answer`."""
    if isinstance(texts, str):
        raise EvaluationError("texts: is one text; write answer([text])")
    if batch_size < 1:
        raise EvaluationError(f"batch_size: {batch_size}: should be at least 1")
    if top_k != 1 and read_by.task != _LABELLED:
        raise EvaluationError(f"top_k: is for labels of whole texts, not for {read_by.task}; leave it out")
    asked = list(texts)
    if not asked:
        return []
    read, answers_of = read_by.read(asked), _ANSWERS[read_by.task](model, read_by, top_k)
    answers: list[Any] = [None] * len(asked)
    for chosen in in_batches([len(ids) for ids in read["input_ids"]], batch_size):
        for index, one in zip(chosen, answers_of(asked, read, chosen), strict=True):
            answers[index] = one
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


Batch = Callable[[Sequence[Text], Any, Sequence[int]], Iterator[Any]]
"""Answers to the chosen ones of the texts, which are given as they were asked and as they were read."""


def _labels(model: Any, read_by: Reader, top_k: int | None) -> Batch:
    """Labels with scores, as transformers' text-classification pipeline gives them."""
    scores_of = _scoring(model.config)

    def labels(asked: Sequence[Text], read: Any, chosen: Sequence[int]) -> Iterator[Any]:
        for row in scores_of(model(**read_by.batch(read, chosen)).logits.float()):
            yield _labelled(row, model.config, top_k)

    return labels


def _entities(model: Any, read_by: Reader, top_k: int | None) -> Batch:
    """What transformers' token-classification pipeline gives: a list of tokens with labels, for each text."""
    from transformers import pipeline

    pipe: Any = pipeline("token-classification", model=model, tokenizer=read_by.tokenizer)

    def entities(asked: Sequence[Text], read: Any, chosen: Sequence[int]) -> Iterator[Any]:
        if not all(isinstance(asked[index], str) for index in chosen):
            raise EvaluationError("texts: are pairs, but tokens are labelled in texts; write [text, …]")
        yield from pipe([asked[index] for index in chosen], batch_size=len(chosen))

    return entities


def _spans(model: Any, read_by: Reader, top_k: int | None) -> Batch:
    """The best span of each context."""

    def spans(asked: Sequence[Text], read: Any, chosen: Sequence[int]) -> Iterator[Any]:
        logits = model(**read_by.batch(read, chosen))
        for row, index in enumerate(chosen):
            offsets = [
                ends if sequence == 1 else None
                for ends, sequence in zip(read["offset_mapping"][index], read.sequence_ids(index), strict=True)
            ]
            starts, ends = (logits[name][row, : len(offsets)] for name in ("start_logits", "end_logits"))
            yield best_span(starts, ends, offsets, asked[index][1])

    return spans


_LABELLED: Task = "sequence-classification"
_ANSWERS: dict[Task, Callable[[Any, Reader, int | None], Batch]] = {
    _LABELLED: _labels,
    "token-classification": _entities,
    "question-answering": _spans,
}


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
