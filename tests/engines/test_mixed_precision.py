"""As few operations as it takes are in float again, those first that move the answers most."""

from collections.abc import Sequence
from typing import Any

import torch

from optimizer.engines.mixed_precision import Answers, Likeness, Place, fewest_given_back, places

NAMES = [f"matrix {number}" for number in range(8)]
PLACES = [Place((f"quantizer {name}",), (name,)) for name in NAMES]
TEXTS = [{"input_ids": torch.arange(length)[None] + first} for length in (3, 5, 3) for first in range(20)]
DAMAGE = [0.0, 0.01, 3.0, 0.02, 0.0, 2.0, 0.01, 0.03]  # that each place does to the answers in int8


class Graph:
    """Answers two classes by a text's sum; each place in int8 moves them by its damage."""

    def __init__(self, given_back: Sequence[Place] = PLACES, always: float = 0.0) -> None:
        kept = [damage for place, damage in zip(PLACES, DAMAGE, strict=True) if place not in given_back]
        self.moved = sum(kept) + always

    def __call__(self, input_ids: torch.Tensor) -> torch.Tensor:
        share = (input_ids.sum(1).double() * 0.7).sin() * 4
        return torch.stack([share, torch.full_like(share, self.moved)], dim=1)


def _divergence(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.kl_div(other.log_softmax(-1), one.softmax(-1), reduction="none").sum(-1)


LIKENESS = Likeness(
    ask=lambda model, batch: model(**batch),  # type: ignore[arg-type, return-value]
    agrees=lambda one, other: one.argmax(-1) == other.argmax(-1),
    divergence=_divergence,
)


def go(bar: float, always: float = 0.0) -> tuple[list[Place], list[str], int]:
    """What is given back, what is said, and how many graphs were run."""
    chosen: dict[int, Sequence[Place]] = {}
    lines: list[str] = []
    ran = []

    def graph(given: Sequence[Place]) -> Any:
        made = Graph(given, always)
        chosen[id(made)] = given
        ran.append(made)
        return made

    found = fewest_given_back(PLACES, graph, lambda made: made, Answers(TEXTS, LIKENESS, Graph()), bar, lines.append)
    return list(chosen[id(found)]), lines, len(ran)


def test_what_moves_the_answers_most_is_given_back_first_and_nothing_more() -> None:
    given, (line,), _ = go(0.9)
    assert given == [PLACES[2], PLACES[5]]
    assert "with 2 of 8 groups of operations in float again: matrix 2, matrix 5" in line
    assert line.startswith("agreement 0.")
    assert "below" not in line


def test_where_int8_agrees_nothing_is_given_back_and_nothing_ranked() -> None:
    given, (line,), ran = go(0.1)
    assert (given, ran) == ([], 2)
    assert "on the 60 calibration texts, all in int8" in line


def test_where_all_in_float_falls_short_the_line_says_so() -> None:
    given, (line,), _ = go(0.99, always=3.0)
    assert len(given) == len(PLACES)
    assert "with 8 of 8 groups" in line
    assert line.endswith("; below 0.99 even so")


def test_texts_of_one_length_are_asked_together_and_none_is_padded() -> None:
    shapes = []

    def ask(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        shapes.append(tuple(batch["input_ids"].shape))
        return model(**batch)

    Answers(TEXTS, Likeness(ask, LIKENESS.agrees, LIKENESS.divergence), Graph())  # type: ignore[arg-type]
    assert shapes == [(16, 3), (16, 3), (8, 3), (16, 5), (4, 5)]


def test_quantizers_that_one_operation_reads_go_together() -> None:
    found = places({"of q": ["attention"], "of x": ["up", "gate"], "of k": ["attention"], "of y": ["down"]})
    assert found == [
        Place(("of x",), ("up", "gate")),
        Place(("of q", "of k"), ("attention",)),
        Place(("of y",), ("down",)),
    ]
