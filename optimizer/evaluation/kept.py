"""What both models have said to every text, kept as far as figures need all of it at once, and those figures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from optimizer.data.labels import Gold
from optimizer.engines.spans import best_span
from optimizer.evaluation import answers as found_answers
from optimizer.evaluation import classes, embeddings, scores, tags
from optimizer.evaluation.agreement import Decision
from optimizer.evaluation.tally import Answers

Found = dict[str, float | None]


@dataclass(frozen=True)
class About:
    """What is known of the texts: what is right, what belongs together, what the model reads alike.

    `readings` holds for each position what tells its example from others, `apart` says that positions 2 n and 2 n + 1
    are those of pair n; `starts` has for each token the word that begins there, else -1; `names` are those of classes;
    `spans` has for each token its place in that text of `contexts` which answers are found in.
    """

    gold: Gold = field(default_factory=Gold)
    groups: Sequence[str | int] | None = None
    readings: Mapping[int, Any] = field(default_factory=dict)
    apart: bool = False
    starts: Mapping[int, Tensor] | None = None
    names: Mapping[int, str] = field(default_factory=dict)
    spans: Mapping[int, Sequence[tuple[int, int] | None]] = field(default_factory=dict)
    contexts: Mapping[int, str] = field(default_factory=dict)


class Kept:
    """The answers to texts at their positions; `figures` are the row's columns that they fill."""

    def __init__(self, decision: Decision, about: About) -> None:
        self._decision, self._about = decision, about
        self._rows: dict[int, tuple[Tensor, ...]] = {}
        self._keep = self._how()
        self._texts: dict[int, tuple[str, str]] = {}

    def add(self, positions: Sequence[int], answers: Answers) -> None:
        """Keep what is needed of one batch."""
        if self._about.gold.answers is not None and self._about.spans:
            self._add_texts(positions, answers)
        if self._keep is None:
            return
        kept = [values.cpu() for values in self._keep(answers)]
        sizes = [1] * len(positions)
        if self._about.starts is not None:
            sizes = [int((self._about.starts[position] >= 0).sum()) for position in positions]
        parts = [torch.split(values, sizes) for values in kept]
        self._rows |= {position: tuple(part[row] for part in parts) for row, position in enumerate(positions)}

    def figures(self) -> Found:
        """Every figure that all the answers give."""
        if self._texts:
            return self._of_answers()
        if not self._rows:
            return {}
        order = sorted(self._rows)
        if self._about.starts is not None:
            return self._of_tags(order)
        one, other, *more = (torch.cat(values) for values in zip(*(self._rows[place] for place in order), strict=True))
        groups = self._about.groups
        together = None if groups is None else [groups[place] for place in order]
        match self._decision:
            case "vector":
                return self._of_vectors(order, one, other)
            case "number":
                return self._of_scores(order, one, other, together)
            case "set":
                return classes.set_figures(one, other, self._sets(order, one.shape[1]))
        assert self._about.gold.classes is not None
        right = torch.tensor([self._about.gold.classes[place] for place in order])
        before, after = (classes.Decided(*decided) for decided in ((one, more[0]), (other, more[1])))
        return classes.figures(before, after, right, together)

    def _add_texts(self, positions: Sequence[int], answers: Answers) -> None:
        """Keep the answer texts of one batch."""
        both = answers.original.cpu(), answers.artifact.cpu()
        for row, place in enumerate(positions):
            spans, context = self._about.spans[place], self._about.contexts[place]
            one, other = (
                str(best_span(logits[row, 0, : len(spans)], logits[row, 1, : len(spans)], spans, context)["answer"])
                for logits in both
            )
            self._texts[place] = one, other

    def _of_answers(self) -> Found:
        assert self._about.gold.answers is not None
        one, other = zip(*self._texts.values(), strict=True)
        return found_answers.figures(one, other, [self._about.gold.answers[place] for place in self._texts])

    def _how(self) -> Callable[[Answers], tuple[Tensor, ...]] | None:
        """What is kept of a batch; None if nothing is."""
        gold = self._about.gold
        if self._decision == "vector":
            return lambda answers: (answers.original.float(), answers.artifact.float())
        if self._decision == "number":
            return _scores
        if self._decision == "set":
            return None if gold.sets is None else lambda answers: (answers.original > 0, answers.artifact > 0)
        if self._about.starts is not None:
            return lambda answers: (answers.original.argmax(-1), answers.artifact.argmax(-1))
        return None if gold.classes is None else _decided

    def _of_vectors(self, order: Sequence[int], one: Tensor, other: Tensor) -> Found:
        first: dict[Any, int] = {}
        for row, place in enumerate(order):
            first.setdefault(self._about.readings.get(place, place), row)
        found: Found = {**embeddings.figures(one, other, torch.tensor(sorted(first.values())))}
        golden = self._about.gold.scores
        if not self._about.apart or golden is None:
            return found
        rows = {place: row for row, place in enumerate(order)}
        pairs = [place for place in order if place % 2 == 0 and place + 1 in rows]
        if not pairs:
            return found
        left, right = ([rows[place + second] for place in pairs] for second in (0, 1))
        known = torch.tensor([golden[place // 2] for place in pairs])
        return found | embeddings.gold_figures((one[left], one[right]), (other[left], other[right]), known)

    def _of_scores(self, order: Sequence[int], one: Tensor, other: Tensor, groups: Sequence[Any] | None) -> Found:
        if one.shape[1] != 1:
            return {}
        one, other = one.flatten(), other.flatten()
        found = scores.figures(one, other, groups)
        golden = self._about.gold.scores
        if golden is None:
            return found
        return found | scores.gold_figures(one, other, torch.tensor([golden[place] for place in order]))

    def _sets(self, order: Sequence[int], width: int) -> Tensor:
        assert self._about.gold.sets is not None
        right = torch.zeros(len(order), width, dtype=torch.bool)
        for row, place in enumerate(order):
            right[row, list(self._about.gold.sets[place])] = True
        return right

    def _of_tags(self, order: Sequence[int]) -> Found:
        both = [
            [[self._about.names[each] for each in self._rows[place][side].tolist()] for place in order]
            for side in (0, 1)
        ]
        golden, starts = self._about.gold.tags, self._about.starts
        if golden is None or starts is None:
            return tags.figures(both[0], both[1], None)
        read = [[golden[place][word] for word in starts[place].tolist() if word >= 0] for place in order]
        return tags.figures(both[0], both[1], read)


def _scores(answers: Answers) -> tuple[Tensor, ...]:
    return answers.original.float().flatten(1), answers.artifact.float().flatten(1)


def _decided(answers: Answers) -> tuple[Tensor, ...]:
    (sure, said), (other_sure, other_said) = (
        logits.float().softmax(-1).max(-1) for logits in (answers.original, answers.artifact)
    )
    return said, other_said, sure, other_sure
