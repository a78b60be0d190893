"""Figures of embeddings: neighbours against a plain search over all pairs, and cases counted by hand."""

import math

import pytest
import torch
from scipy.stats import spearmanr

from optimizer.evaluation.agreement import wilson
from optimizer.evaluation.embeddings import figures, gold_figures, neighbours


def on_circle(*degrees: float) -> torch.Tensor:
    return torch.tensor([[math.cos(math.radians(each)), math.sin(math.radians(each))] for each in degrees])


def test_neighbours_are_the_nearest_others_whatever_their_length() -> None:
    vectors = on_circle(0, 10, 25, 100) * torch.tensor([[1.0], [50.0], [0.1], [3.0]])
    assert neighbours(vectors).tolist() == [[1, 2, 3], [0, 2, 3], [1, 0, 3], [2, 1, 0]]


def test_more_rows_than_are_compared_at_once() -> None:
    vectors = torch.randn(2500, 8, generator=torch.Generator().manual_seed(0))
    unit = vectors.double() / vectors.double().norm(dim=1, keepdim=True)
    cosines = unit @ unit.T
    cosines.fill_diagonal_(-2)
    assert torch.equal(neighbours(vectors)[:, 0], cosines.argmax(1))
    assert neighbours(vectors).shape == (2500, 10)


def test_the_share_whose_nearest_is_the_same() -> None:
    original, artifact = on_circle(0, 10, 30, 31), on_circle(0, 21, 30, 31)
    found = figures(original, artifact, torch.arange(4))
    # 1 is now nearer to 2; the nearest of 0, 2 and 3 stay.
    assert found["neighbour_agreement"] == 0.75
    assert (found["neighbour_agreement_low"], found["neighbour_agreement_high"]) == wilson(3, 4)
    assert found["neighbour_overlap_10"] == 1
    assert found["cosine_similarity"] == pytest.approx((3 + math.cos(math.radians(11))) / 4, abs=1e-6)


def test_the_first_percentile_is_that_of_the_texts_that_moved_most() -> None:
    original = on_circle(*[0] * 100)
    artifact = on_circle(90, 90, *[0] * 98)
    assert figures(original, artifact, torch.arange(1))["cosine_similarity_p1"] == pytest.approx(0, abs=1e-6)


def test_texts_that_are_read_alike_are_nobodys_neighbours() -> None:
    original, artifact = on_circle(0, 0, 0, 40, 60), on_circle(0, 0, 0, 40, 60)
    found = figures(original, artifact, torch.tensor([0, 3, 4]))
    assert found["neighbour_agreement"] == 1
    assert found["neighbour_agreement_low"] == wilson(3, 3)[0]


def test_one_text_has_no_neighbour() -> None:
    assert set(figures(on_circle(1), on_circle(2), torch.arange(1))) == {"cosine_similarity", "cosine_similarity_p1"}


def test_of_very_many_texts_a_part_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optimizer.evaluation.embeddings._MOST", 5)
    vectors = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    found = figures(vectors, vectors, torch.arange(40))
    assert found["neighbour_agreement_low"] == wilson(5, 5)[0]


def test_pairs_follow_the_scores_of_people() -> None:
    first, second, moved = (torch.randn(30, 4, generator=torch.Generator().manual_seed(seed)) for seed in range(3))
    scores = torch.arange(30.0)
    found = gold_figures((first, second), (first, moved), scores)
    for prefix, other in (("", moved), ("original_", second)):
        cosines = torch.nn.functional.cosine_similarity(first, other)
        assert found[f"{prefix}gold_spearman"] == pytest.approx(spearmanr(scores, cosines).statistic)
