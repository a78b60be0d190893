"""Answers to questions as SQuAD counts them, by hand."""

import pytest

from optimizer.evaluation.answers import figures, score


@pytest.mark.parametrize(
    ("said", "right", "exact", "f1"),
    [
        ("The cat.", "a cat", 1, 1),
        ("the big cat", "big dog", 0, 0.5),
        ("cat cat", "cat", 0, 2 / 3),
        ("dog", "cat", 0, 0),
        ("", "", 1, 1),
        ("the", "", 1, 1),
        ("cat", "", 0, 0),
        ("", "cat", 0, 0),
    ],
)
def test_one_answer(said: str, right: str, exact: float, f1: float) -> None:
    assert score(said, right) == (exact, pytest.approx(f1))
    assert score(right, said) == (exact, pytest.approx(f1))


def test_the_best_of_several_right_ones_counts_and_none_is_the_empty_one() -> None:
    found = figures(["dog", "fish"], ["big cat", ""], [["cat", "Big cat!"], []])
    assert found == {"exact_match": 1, "answer_f1": 1, "original_exact_match": 0, "original_answer_f1": 0}
