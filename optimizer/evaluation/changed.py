"""Which texts an artifact answers otherwise than its original, how, and how sure both were."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from optimizer.data.tokens import TokenInputs
from optimizer.evaluation import agreement
from optimizer.evaluation.agreement import Decision
from optimizer.evaluation.inputs import Batch, Inputs
from optimizer.evaluation.predict import answers_words, counted, decision
from optimizer.evaluation.tally import Answers
from optimizer.model.task import Task
from optimizer.rows.changes import Change

_SPAN = 3  # axes of the answers of question answering: texts, start and end, tokens


class Changed:
    """Gathers changes batch by batch; none of models that decide on nothing, nor of text that is generated.

    Where each token or word is answered, a text has one change however many of them differ; `starts` has for each token
    the word that begins there, else -1, where only words are answered.
    """

    def __init__(
        self,
        task: Task,
        config: Any,
        inputs: Inputs,
        *,
        keep_texts: bool,
        starts: Mapping[int, Tensor] | None = None,
    ) -> None:
        self._decision: Decision = decision(task, config)
        self._inputs = inputs if isinstance(inputs, TokenInputs) else None
        self._names = None if answers_words(task) else dict(getattr(config, "id2label", None) or {})
        self._keep_texts, self._starts = keep_texts, starts
        self._several = counted(task) == "tokens"
        self._found: dict[int, Change] = {}

    def add(self, batch: Batch, answers: Answers) -> None:
        """Look through the answers to one batch; those to tokens or words say of which text each is."""
        if self._inputs is None or self._decision not in ("class", "set"):
            return
        owners = answers.texts if self._several else torch.tensor(batch.positions)
        if owners is None:
            return
        owners = owners.cpu()
        within = _places_within(owners) if self._several else None
        start = 0
        for piece in answers.pieces():
            same = agreement.agrees(piece.original, piece.artifact, self._decision, piece.valid)
            for row in (~same).nonzero().flatten().tolist():
                place = int(owners[start + row])
                token = None if within is None else self._token(place, int(within[start + row]))
                self._note(batch, place, piece, row, token)
            start += len(piece.original)

    def found(self) -> list[Change]:
        """All changes so far."""
        return list(self._found.values())

    def _token(self, place: int, index: int) -> int:
        """The place in its text of the answer at `index` of those to the text: of a word where words are answered."""
        if self._starts is None:
            return index
        words = self._starts[place]
        return int(words[words >= 0][index])

    def _note(self, batch: Batch, place: int, piece: Answers, row: int, token: int | None) -> None:
        assert self._inputs is not None
        if (before := self._found.get(place)) is not None:
            self._found[place] = Change(**vars(before) | {"tokens": (before.tokens or 0) + 1})
            return
        valid = None if piece.valid is None else piece.valid[row]
        both = (piece.original[row], piece.artifact[row])
        said = [self._answer(logits, valid, batch, place) for logits in both]
        margins = [_margin(logits, valid, self._decision) for logits in both]
        text = self._inputs.texts.texts[place] if self._keep_texts else None
        self._found[place] = Change(
            position=self._inputs.texts.number(place),
            original=said[0],
            artifact=said[1],
            original_margin=margins[0],
            artifact_margin=margins[1],
            token=token,
            tokens=None if token is None else 1,
            text=list(text) if isinstance(text, tuple) else text,
        )

    def _answer(self, logits: Tensor, valid: Tensor | None, batch: Batch, place: int) -> str:
        """One model's answer in words: a label, the labels of a set, the place of a span, or a token."""
        if self._decision == "set":
            return ", ".join(self._name(index) for index in (logits > 0).nonzero().flatten().tolist()) or "none"
        best = (logits if valid is None else logits.masked_fill(~valid, -torch.inf)).argmax(-1)
        if best.ndim == 0:
            return self._name(int(best))
        start, end = best.tolist()
        span = f"tokens {start} to {end}"
        if not self._keep_texts or self._inputs is None:
            return span  # the words are the text's own
        ids = batch.inputs["input_ids"][batch.positions.index(place), start : end + 1]
        return f"{self._inputs.tokenizer.decode(ids).strip()!r} ({span})"

    def _name(self, index: int) -> str:
        if self._names is not None:
            return str(self._names.get(index, index))
        assert self._inputs is not None
        return str(self._inputs.tokenizer.decode([index]))


def _places_within(owners: Tensor) -> Tensor:
    """Of each row its place among those of its text, whose rows follow each other; `[rows]`."""
    _, counts = torch.unique_consecutive(owners, return_counts=True)
    places: Tensor = torch.arange(len(owners)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    return places


def _margin(logits: Tensor, valid: Tensor | None, decides: Decision) -> float:
    if decides == "set":
        return float((2 * logits.float().sigmoid() - 1).abs().min())
    known = logits if valid is None else logits.masked_fill(~valid, -torch.inf)
    largest = known.float().softmax(-1).topk(min(2, known.shape[-1])).values
    others = largest[..., 1:].sum(-1)  # 0 where there is one class alone
    return float((largest[..., 0] - others).min())
