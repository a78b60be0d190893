"""Figures of classifiers: against scikit-learn on random answers, and by hand at the edges."""

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, matthews_corrcoef

from optimizer.evaluation.classes import Decided, calibration_error, figures, matthews, set_figures


def decided(*classes: int, confidence: float = 1.0) -> Decided:
    return Decided(torch.tensor(classes), torch.full((len(classes),), confidence))


@pytest.mark.parametrize("seed", range(5))
def test_against_scikit_learn(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels, said, before = torch.randint(7, (3, 60), generator=generator)
    found = figures(Decided(before, torch.ones(60)), Decided(said, torch.ones(60)), labels, None)
    for prefix, one in (("", said), ("original_", before)):
        assert found[f"{prefix}macro_f1"] == pytest.approx(f1_score(labels, one, average="macro", zero_division=0))
        assert found[f"{prefix}matthews"] == pytest.approx(matthews_corrcoef(labels, one))


@pytest.mark.parametrize("seed", range(3))
def test_sets_against_scikit_learn(seed: int) -> None:
    labels, said, before = torch.rand(3, 50, 6, generator=torch.Generator().manual_seed(seed)) > 0.6
    found = set_figures(before, said, labels)
    for average in ("macro", "micro"):
        assert found[f"{average}_f1"] == pytest.approx(f1_score(labels, said, average=average))
        assert found[f"original_{average}_f1"] == pytest.approx(f1_score(labels, before, average=average))


def test_one_class_alone() -> None:
    found = figures(decided(0, 0, 0), decided(0, 0, 0), torch.zeros(3, dtype=torch.long), None)
    assert (found["macro_f1"], found["matthews"], found["mcnemar_p"], found["calibration_error"]) == (1, 0, 1, 0)


def test_classes_that_nobody_has_count_for_nothing() -> None:
    found = figures(decided(0, 9), decided(0, 4), torch.tensor([0, 9]), None)
    # The artifact: class 0 is right, 4 is said and never right, 9 is right and never said.
    assert found["macro_f1"] == pytest.approx(1 / 3)
    assert found["original_macro_f1"] == 1


def test_sets_without_any_label_have_no_f1() -> None:
    nothing = torch.zeros(4, 3, dtype=torch.bool)
    assert set(set_figures(nothing, nothing, nothing).values()) == {None}
    everything = ~nothing
    assert set_figures(nothing, everything, nothing)["micro_f1"] == 0


def test_matthews_of_what_is_always_wrong() -> None:
    assert matthews(torch.tensor([1, 0, 1, 0]), torch.tensor([0, 1, 0, 1])) == -1


def test_calibration_error_by_hand() -> None:
    # Bins of 1/15: two texts at .95 of which one is right, one at .55 that is wrong; 1.0 is in the last bin.
    confidence, right = torch.tensor([0.95, 0.95, 0.55, 1.0]), torch.tensor([True, False, False, True])
    assert calibration_error(confidence, right) == pytest.approx((abs(2.9 - 2) + 0.55) / 4, abs=1e-6)
    assert calibration_error(torch.tensor([1.0]), torch.tensor([True])) == 0


def test_texts_in_groups_have_an_interval_and_no_exact_test() -> None:
    labels = torch.zeros(6, dtype=torch.long)
    found = figures(decided(0, 0, 0, 0, 0, 0), decided(0, 0, 0, 0, 1, 1), labels, [0, 0, 1, 1, 2, 2])
    assert "mcnemar_p" not in found
    low, high = found["accuracy_drop_low"], found["accuracy_drop_high"]
    assert low is not None
    assert high is not None
    assert (low, high) == pytest.approx((0, 1), abs=0.34)
    assert np.isfinite([low, high]).all()
