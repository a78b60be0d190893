"""Counts and sums over batches, so that no more than one batch of logits is in memory at a time."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from optimizer.evaluation import agreement
from optimizer.evaluation.agreement import IGNORED, Decision

Figures = dict[str, float | int | str | list[dict[str, float | int | str | None]] | None]

_VALUES_AT_ONCE = 2**22  # logits compared at a time: 16 MiB in float32


@dataclass(frozen=True)
class Answers:
    """What both models say about the rows of one batch, and what is right where that is known.

    `original` and `artifact` are `[rows, …, classes]`, `valid` a mask of that shape; `labels` `[rows]` are the
    right classes; `next_tokens` `[rows]` the tokens that follow in the text, IGNORED where none does; `texts` `[rows]`
    the position of the text that a row is of, where a text has several.
    """

    original: Tensor
    artifact: Tensor
    valid: Tensor | None = None
    labels: Tensor | None = None
    next_tokens: Tensor | None = None
    texts: Tensor | None = None

    def at(self, rows: Tensor | slice) -> "Answers":
        """The same of these rows alone: a slice, or `[rows]` of bool."""

        def chosen(values: Tensor | None) -> Tensor | None:
            if values is None or isinstance(rows, slice):
                return None if values is None else values[rows]
            return values[rows.to(values.device)]

        rest: dict[str, Any] = {each.name: chosen(getattr(self, each.name)) for each in fields(self)}
        return replace(self, **rest)

    def pieces(self) -> Iterator["Answers"]:
        """The same in pieces of a bounded number of logits."""
        rows = max(1, _VALUES_AT_ONCE // self.original[:1].numel())
        for start in range(0, len(self.original), rows):
            yield self.at(slice(start, start + rows))


class Tally:
    """Adds up answers; `figures` are the row's columns that such answers fill."""

    def __init__(self, decision: Decision) -> None:
        self._decision: Decision = decision
        self._rows = 0
        self._sums: defaultdict[str, float] = defaultdict(float)
        self._largest = 0.0
        self._answered: defaultdict[str, set[int]] = defaultdict(set)
        self._by_text: defaultdict[int, Tensor] = defaultdict(lambda: torch.zeros(2, dtype=torch.float64))

    def add(self, answers: Answers) -> None:
        """Count the rows of one batch."""
        for piece in answers.pieces():
            self._rows += len(piece.original)
            if self._decision == "vector":
                continue  # all of them at once say more: see `kept`
            self._add_differences(piece)
            if self._decision != "number":
                self._add_decisions(piece)
            self._add_truth(piece)

    def add_texts(self, original: Iterable[Sequence[str]], artifact: Iterable[Sequence[str]]) -> None:
        """Count the words of the texts that both models have written to one batch."""
        for before, after in zip(original, artifact, strict=True):
            self._sums["words"] += len(before)
            self._sums["word errors"] += agreement.word_errors(before, after)

    def figures(self) -> Figures:
        """Every figure that the answers so far give; a NaN among the logits makes NaN of what it enters."""
        if self._decision == "vector":
            return {"examples": self._rows}
        figures: Figures = {
            "examples": self._rows,
            "max_logit_difference": self._largest,
            "mean_logit_difference": self._mean("differences", self._sums["logits"]),
        }
        if self._decision != "number":
            figures |= self._decided()
        if "correct" in self._sums:
            figures["accuracy"] = self._mean("correct", self._rows)
            figures["original_accuracy"] = self._mean("original correct", self._rows)
        if self._sums["next tokens"]:
            figures["perplexity"] = _exp(self._mean("surprise", self._sums["next tokens"]))
            figures["original_perplexity"] = _exp(self._mean("original surprise", self._sums["next tokens"]))
        if self._sums["words"]:
            figures["word_error_rate"] = self._mean("word errors", self._sums["words"])
        return figures

    def _decided(self) -> Figures:
        agreeing = round(self._sums["agreeing"])
        low, high = self._interval(agreeing)
        answered: Figures = {name: len(classes) for name, classes in self._answered.items()}
        return answered | {
            "agreement": agreeing / self._rows,
            "agreement_low": low,
            "agreement_high": high,
            "kl_divergence": self._mean("divergence", self._rows),
        }

    def _interval(self, agreeing: int) -> tuple[float, float]:
        if not self._by_text:
            return agreement.wilson(agreeing, self._rows)
        counts = torch.stack(list(self._by_text.values()))
        return agreement.wilson_by_text(counts[:, 0], counts[:, 1])

    def _add_differences(self, piece: Answers) -> None:
        apart = agreement.differences(piece.original, piece.artifact, piece.valid)
        self._add("differences", apart)
        self._sums["logits"] += apart.numel()
        largest = float(apart.max())
        if math.isnan(largest) or largest > self._largest:  # NaN, once met, stays
            self._largest = largest

    def _add_decisions(self, piece: Answers) -> None:
        both = piece.original, piece.artifact, self._decision, piece.valid
        alike = agreement.agrees(*both)
        self._add("agreeing", alike)
        if piece.texts is not None:
            owners, places = torch.unique(piece.texts, return_inverse=True)
            counts = torch.stack([places.bincount(alike.double()), places.bincount().double()], dim=1).cpu()
            for owner, each in zip(owners.tolist(), counts, strict=True):
                self._by_text[owner] += each
        self._add("divergence", agreement.divergence(*both))
        if self._decision == "class" and piece.original.ndim == 2:
            for name, logits in (("distinct_answers", piece.artifact), ("original_distinct_answers", piece.original)):
                self._answered[name].update(torch.unique(logits.argmax(-1)).tolist())

    def _add_truth(self, piece: Answers) -> None:
        if piece.labels is not None:
            self._add("correct", agreement.correct(piece.artifact, piece.labels))
            self._add("original correct", agreement.correct(piece.original, piece.labels))
        if piece.next_tokens is not None:
            self._sums["next tokens"] += int((piece.next_tokens != IGNORED).sum())
            self._add("surprise", agreement.negative_log_likelihood(piece.artifact, piece.next_tokens))
            self._add("original surprise", agreement.negative_log_likelihood(piece.original, piece.next_tokens))

    def _add(self, name: str, values: Tensor) -> None:
        self._sums[name] += float(values.double().sum())

    def _mean(self, name: str, count: float) -> float:
        return self._sums[name] / count


def _exp(value: float) -> float:
    return float(torch.tensor(value, dtype=torch.float64).exp())  # infinite where math.exp would raise
