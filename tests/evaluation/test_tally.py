"""Adding up answers batch by batch."""

import math

import pytest
import torch

from optimizer.evaluation import tally as module
from optimizer.evaluation.agreement import IGNORED, wilson, wilson_by_text
from optimizer.evaluation.tally import Answers, Tally

ORIGINAL = torch.tensor([[0.0, 2.0], [3.0, 0.0], [0.0, 1.0]])
ARTIFACT = torch.tensor([[0.0, 1.0], [0.0, 3.0], [0.0, 1.0]])


def test_figures_of_classes() -> None:
    tally = Tally("class")
    tally.add(Answers(ORIGINAL, ARTIFACT, labels=torch.tensor([1, 0, 0])))
    figures = tally.figures()
    assert figures["examples"] == 3
    assert figures["agreement"] == pytest.approx(2 / 3)
    assert (figures["agreement_low"], figures["agreement_high"]) == wilson(2, 3)
    assert figures["max_logit_difference"] == 3
    assert figures["mean_logit_difference"] == pytest.approx(7 / 6)
    assert figures["accuracy"] == pytest.approx(1 / 3)
    assert figures["original_accuracy"] == pytest.approx(2 / 3)
    assert "perplexity" not in figures


@pytest.mark.parametrize("values_at_once", [1, 4, 2**22])
def test_batches_and_pieces_of_any_size_give_the_same(values_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = Tally("class"), Tally("class")
    labels = torch.tensor([1, 0, 0])
    whole.add(Answers(ORIGINAL, ARTIFACT, labels=labels, next_tokens=labels))
    monkeypatch.setattr(module, "_VALUES_AT_ONCE", values_at_once)
    for rows in (slice(0, 2), slice(2, 3)):
        parts.add(Answers(ORIGINAL[rows], ARTIFACT[rows], labels=labels[rows], next_tokens=labels[rows]))
    assert parts.figures() == pytest.approx(whole.figures())


def test_no_right_label_is_an_accuracy_of_zero_not_an_unmeasured_one() -> None:
    tally = Tally("class")
    tally.add(Answers(ORIGINAL, ORIGINAL, labels=torch.tensor([0, 1, 0])))
    assert tally.figures()["accuracy"] == 0


def test_numbers_have_differences_but_no_agreement() -> None:
    tally = Tally("number")
    tally.add(Answers(ORIGINAL[:, :1], ARTIFACT[:, :1]))
    assert tally.figures() == {"examples": 3, "max_logit_difference": 3, "mean_logit_difference": 1}


def test_vectors_are_only_counted_here() -> None:
    tally = Tally("vector")
    tally.add(Answers(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])))
    assert tally.figures() == {"examples": 2}


def test_perplexity_is_the_exponential_of_the_mean_surprise_over_all_batches() -> None:
    tally = Tally("class")
    halves = torch.zeros(2, 2)
    tally.add(Answers(halves, halves, next_tokens=torch.tensor([0, IGNORED])))
    eighth = torch.tensor([[7.0, 1.0]]).log()
    tally.add(Answers(eighth, halves[:1], next_tokens=torch.tensor([1])))
    assert tally.figures()["original_perplexity"] == pytest.approx(math.exp((math.log(2) + math.log(8)) / 2))
    assert tally.figures()["perplexity"] == pytest.approx(2)


def test_perplexity_beyond_the_largest_number_is_infinite() -> None:
    tally = Tally("class")
    hopeless = torch.tensor([[0.0, 1e4]])
    tally.add(Answers(hopeless, hopeless, next_tokens=torch.tensor([0])))
    assert tally.figures()["perplexity"] == math.inf


def test_without_a_next_token_there_is_no_perplexity() -> None:
    tally = Tally("class")
    tally.add(Answers(ORIGINAL, ARTIFACT, next_tokens=torch.full((3,), IGNORED)))
    assert "perplexity" not in tally.figures()


def test_a_nan_counts_against_agreement_and_shows_in_the_differences() -> None:
    broken = ORIGINAL.clone()
    broken[0, 0] = math.nan
    tally = Tally("class")
    tally.add(Answers(ORIGINAL, broken))
    tally.add(Answers(ORIGINAL, ARTIFACT))
    figures = tally.figures()
    assert figures["agreement"] == pytest.approx(4 / 6)
    for name in ("max_logit_difference", "mean_logit_difference", "kl_divergence"):
        assert math.isnan(figures[name]), name  # type: ignore[arg-type]


def test_the_word_error_rate_is_over_all_words_of_the_original() -> None:
    tally = Tally("class")
    tally.add(Answers(ORIGINAL, ARTIFACT))
    assert "word_error_rate" not in tally.figures()
    tally.add_texts([["the", "cat"], []], [["the", "dog"], []])
    tally.add_texts([["a", "bird"]], [["a", "bird", "sees"]])
    assert tally.figures()["word_error_rate"] == 2 / 4


def test_answers_that_belong_to_texts_have_an_interval_by_text() -> None:
    original = torch.eye(2).repeat(6, 1)
    artifact = torch.cat([original[:8], original[8:].flip(1)])
    owners = torch.tensor([7, 7, 7, 7, 2, 2, 2, 2, 5, 5, 5, 5])
    whole, parts = Tally("class"), Tally("class")
    whole.add(Answers(original, artifact, texts=owners))
    for rows in (slice(0, 6), slice(6, 12)):
        parts.add(Answers(original, artifact, texts=owners).at(rows))
    assert whole.figures() == parts.figures()
    found = whole.figures()
    expected = wilson_by_text(torch.tensor([4.0, 4, 0]), torch.tensor([4.0, 4, 4]))
    assert (found["agreement_low"], found["agreement_high"]) == pytest.approx(expected)
