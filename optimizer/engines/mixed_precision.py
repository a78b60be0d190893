"""What an int8 graph computes in float again: as much as it takes to answer as the float graph does.

NNCF's quantize_with_accuracy_control (3.4) is not for graphs with SmoothQuant: what it gives back has its own weights
again, but activations that are scaled for others.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from optimizer.model.examples import of_one_length, tokens
from optimizer.model.runnable import Runnable

G = TypeVar("G")
Batch = dict[str, Tensor]

_TOGETHER = 16  # texts of one length that are asked at once
_RANKED_ON = 64  # texts; a rank needs fewer than an agreement
_NAMED = 8  # operations in a line of the log


@dataclass(frozen=True)
class Likeness:
    """How answers are asked for and compared, as they are where the artifact is measured.

    `ask` gives a model's logits for a batch, `[rows, …, classes]`; of two such `agrees` says of each row whether it is
    decided alike, `[rows]`, of vectors their cosine; `divergence` how far apart it is, of classes KL(first || second).
    """

    ask: Callable[[Runnable, Batch], Tensor]
    agrees: Callable[[Tensor, Tensor], Tensor]
    divergence: Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, order=True)
class Place:
    """Quantizers of activations that go together, because some operation reads them all, and who reads them."""

    quantizers: tuple[str, ...]
    operations: tuple[str, ...]


def places(readers: Mapping[str, Sequence[str]]) -> list[Place]:
    """The places of a graph, in its order; `readers` gives the names of the operations that read each quantizer."""
    found: list[Place] = []
    for quantizer, operations in readers.items():
        shared = [place for place in found if set(place.operations) & set(operations)]
        found = [place for place in found if place not in shared]
        quantizers = (*(name for place in shared for name in place.quantizers), quantizer)
        known = (*(name for place in shared for name in place.operations), *operations)
        found.append(Place(quantizers, tuple(dict.fromkeys(known))))
    return found


class Answers:
    """A float graph's answers to texts, with which others are compared; `texts` are batches of one."""

    def __init__(self, texts: Iterable[Mapping[str, Tensor]], likeness: Likeness, model: Runnable) -> None:
        self.texts, self._likeness, self._model = sorted(texts, key=tokens), likeness, model
        self._batches = list(of_one_length(self.texts, _TOGETHER))
        self._reference = [likeness.ask(model, batch) for batch in self._batches]

    def of_some(self, count: int) -> "Answers":
        """Those to at most so many texts, of all lengths."""
        count = min(count, len(self.texts))
        chosen = [self.texts[place * len(self.texts) // count] for place in range(count)]
        return Answers(chosen, self._likeness, self._model)

    def agreement(self, model: Runnable) -> float:
        """The share of the answers of a graph that are the float graph's; of vectors their mean cosine."""
        return torch.cat([*self._of_each(model, self._likeness.agrees)]).double().mean().item()

    def divergence(self, model: Runnable) -> float:
        """How far a graph's answers are from the float graph's, in the mean."""
        return torch.cat([*self._of_each(model, self._likeness.divergence)]).double().mean().item()

    def _of_each(self, model: Runnable, compare: Callable[[Tensor, Tensor], Tensor]) -> Iterable[Tensor]:
        for batch, reference in zip(self._batches, self._reference, strict=True):
            yield compare(reference, self._likeness.ask(model, batch))


def fewest_given_back(
    found: Sequence[Place],
    graph: Callable[[Sequence[Place]], G],
    run: Callable[[G], Runnable],
    answers: Answers,
    bar: float,
    log: Callable[[str], None],
) -> G:
    """The int8 graph with as few places in float as it takes for a share `bar` of the float graph's `answers`.

    `graph` makes one with these places given back, `run` runs it. Places are given back by how far the answers move
    when they alone are in int8, the farthest first; all of them where no fewer reach the bar, which the log says.
    """

    def agreement(chosen: Sequence[Place]) -> float:
        return answers.agreement(run(graph(chosen)))

    before = agreement(())
    if before >= bar or not found:
        log(
            f"agreement {before:.4f} on the {len(answers.texts)} calibration texts, all in int8"
            + _short_of(before, bar)
        )
        return graph(())
    some = answers.of_some(_RANKED_ON)
    alone = {one: some.divergence(run(graph([other for other in found if other != one]))) for one in found}
    ranked = sorted(found, key=lambda one: -alone[one])  # stable: equals keep the graph's order
    few, reached = _fewest(len(ranked), lambda count: agreement(ranked[:count]), bar)
    names = [name for one in ranked[:few] for name in one.operations]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    log(
        f"agreement {before:.4f} on the {len(answers.texts)} calibration texts in int8, {reached:.4f} with {few} of "
        f"{len(found)} groups of operations in float again: {', '.join(names[:_NAMED])}{more}{_short_of(reached, bar)}"
    )
    return graph(ranked[:few])


def _fewest(most: int, agreement: Callable[[int], float], bar: float) -> tuple[int, float]:
    """The fewest, from 1 on, that reach the bar, and what they reach; all of them where none does.

    First doubled, then halved between: nearly as few graphs for many places as for one.
    """
    below, count = 0, 1
    while (reached := agreement(count)) < bar:
        if count == most:
            return most, reached
        below, count = count, min(2 * count, most)
    while count - below > 1:
        middle = (below + count) // 2
        if (found := agreement(middle)) >= bar:
            count, reached = middle, found
        else:
            below = middle
    return count, reached


def _short_of(reached: float, bar: float) -> str:
    return "" if reached >= bar else f"; below {bar} even so"
