"""Which texts an artifact answers otherwise than its original, how, and how sure both were."""

from typing import Any

import torch
from torch import Tensor

from optimizer.data.tokens import TokenInputs
from optimizer.evaluation import agreement
from optimizer.evaluation.agreement import Decision
from optimizer.evaluation.inputs import Batch, Inputs
from optimizer.evaluation.predict import answers_words, decision
from optimizer.evaluation.tally import Answers
from optimizer.model.task import Task
from optimizer.rows.changes import Change

_SPAN = 3  # axes of the answers of question answering: texts, start and end, tokens


class Changed:
    """Gathers changes batch by batch; none of models that decide on nothing, nor of text that is generated.

    Where each token is answered, a text has one change however many of its tokens differ.
    """

    def __init__(self, task: Task, config: Any, inputs: Inputs, *, keep_texts: bool) -> None:
        self._decision: Decision = decision(task, config)
        self._inputs = inputs if isinstance(inputs, TokenInputs) else None
        self._names = None if answers_words(task) else dict(getattr(config, "id2label", None) or {})
        self._keep_texts = keep_texts
        self._found: dict[int, Change] = {}

    def add(self, batch: Batch, answers: Answers) -> None:
        """Look through the answers to one batch."""
        if self._inputs is None or self._decision not in ("class", "set"):
            return
        owners = owners_of(batch, len(answers.original))
        if owners is None:
            return
        several = len(answers.original) != len(batch.positions)
        firsts = torch.searchsorted(owners, owners) if several else owners
        start = 0
        for piece in answers.pieces():
            same = agreement.agrees(piece.original, piece.artifact, self._decision, piece.valid)
            for row in (~same).nonzero().flatten().tolist():
                owner = int(owners[start + row])
                token = start + row - int(firsts[start + row]) if several else None
                self._note(batch, owner, piece, row, token)
            start += len(piece.original)

    def found(self) -> list[Change]:
        """All changes so far."""
        return list(self._found.values())

    def _note(self, batch: Batch, owner: int, piece: Answers, row: int, token: int | None) -> None:
        assert self._inputs is not None
        place = batch.positions[owner]
        if (before := self._found.get(place)) is not None:
            self._found[place] = Change(**vars(before) | {"tokens": (before.tokens or 0) + 1})
            return
        valid = None if piece.valid is None else piece.valid[row]
        both = (piece.original[row], piece.artifact[row])
        said = [self._answer(logits, valid, batch, owner) for logits in both]
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

    def _answer(self, logits: Tensor, valid: Tensor | None, batch: Batch, owner: int) -> str:
        """One model's answer in words: a label, the labels of a set, the place of a span, or a token."""
        if self._decision == "set":
            return ", ".join(self._name(index) for index in (logits > 0).nonzero().flatten().tolist()) or "none"
        best = (logits if valid is None else logits.masked_fill(~valid, -torch.inf)).argmax(-1)
        if best.ndim == 0:
            return self._name(int(best))
        start, end = best.tolist()
        place = f"tokens {start} to {end}"
        if not self._keep_texts or self._inputs is None:
            return place  # the words are the text's own
        ids = batch.inputs["input_ids"][owner, start : end + 1]
        return f"{self._inputs.tokenizer.decode(ids).strip()!r} ({place})"

    def _name(self, index: int) -> str:
        if self._names is not None:
            return str(self._names.get(index, index))
        assert self._inputs is not None
        return str(self._inputs.tokenizer.decode([index]))


def owners_of(batch: Batch, rows: int) -> Tensor | None:
    """Which of a batch's texts each row of an answer is of, `[rows]`; None for generated tokens, of any of them."""
    if rows == len(batch.positions):
        return torch.arange(rows)
    mask = batch.inputs.get("attention_mask")
    if mask is None or rows != int(mask.sum()):
        return None
    return torch.arange(len(mask)).repeat_interleave(mask.sum(1).cpu())


def _margin(logits: Tensor, valid: Tensor | None, decides: Decision) -> float:
    if decides == "set":
        return float((2 * logits.float().sigmoid() - 1).abs().min())
    known = logits if valid is None else logits.masked_fill(~valid, -torch.inf)
    largest = known.float().softmax(-1).topk(min(2, known.shape[-1])).values
    others = largest[..., 1:].sum(-1)  # 0 where there is one class alone
    return float((largest[..., 0] - others).min())
