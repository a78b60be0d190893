"""Figures of scores: against scipy on random answers, and by hand where there are ties or no order at all."""

import pytest
import torch
from scipy.stats import kendalltau, spearmanr

from optimizer.evaluation.agreement import wilson
from optimizer.evaluation.scores import figures, gold_figures


def test_against_scipy() -> None:
    original, artifact = torch.randint(9, (2, 50), generator=torch.Generator().manual_seed(0)).float()
    found = figures(original, artifact, None)
    assert found == {
        "spearman": pytest.approx(spearmanr(original, artifact).statistic),
        "kendall": pytest.approx(kendalltau(original, artifact).statistic),
    }


def test_the_other_way_round() -> None:
    assert figures(torch.tensor([1.0, 2, 3]), torch.tensor([3.0, 2, 1]), None) == {"spearman": -1, "kendall": -1}


@pytest.mark.parametrize("count", [1, 3])
def test_what_has_no_order_has_no_figure_and_what_loses_it_nothing_left(count: int) -> None:
    flat, rising = torch.ones(count), torch.arange(3.0)
    assert figures(flat, torch.arange(float(count)), None) == {"spearman": None, "kendall": None}
    assert figures(rising, torch.ones(3), None) == {"spearman": 0, "kendall": 0}


def test_the_same_first_answer_in_each_group_of_several() -> None:
    original = torch.tensor([3.0, 1, 2, 5, 9, 4])
    artifact = torch.tensor([2.0, 0, 1, 7, 3, 8])
    found = figures(original, artifact, ["a", "a", "a", "b", "alone", "b"])
    assert found["first_answer_agreement"] == 0.5
    assert (found["first_answer_agreement_low"], found["first_answer_agreement_high"]) == wilson(1, 2)
    assert set(figures(original, artifact, list("abcdef"))) == {"spearman", "kendall"}


def test_beside_the_scores_of_people() -> None:
    scores, artifact = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([5.0, 7, 6])
    assert gold_figures(torch.arange(3.0), artifact, scores) == {"gold_spearman": 0.5, "original_gold_spearman": 1}
