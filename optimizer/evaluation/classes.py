"""Figures of classifiers where the right classes are known: pure functions of what was decided for each text."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from optimizer.evaluation import chance

_BINS = 15  # of confidence, as Guo et al. have it (On Calibration of Modern Neural Networks, 2017)


@dataclass(frozen=True)
class Decided:
    """The class of each text, `[texts]`, and the probability that the model gives it."""

    classes: Tensor
    confidence: Tensor


def figures(
    original: Decided, artifact: Decided, labels: Tensor, groups: Sequence[Hashable] | None
) -> dict[str, float | None]:
    """How well both decide, and whether the artifact's loss of accuracy is more than chance.

    Of texts in groups, which are not independent, there is no exact test; the interval resamples groups.
    """
    found: dict[str, float | None] = {}
    for prefix, one in (("", artifact), ("original_", original)):
        found[f"{prefix}macro_f1"] = macro_f1(*_counts(one.classes, labels))
        found[f"{prefix}matthews"] = matthews(one.classes, labels)
        found[f"{prefix}calibration_error"] = calibration_error(one.confidence, one.classes == labels)
    before, after = ((one.classes == labels).numpy() for one in (original, artifact))
    found["accuracy_drop_low"], found["accuracy_drop_high"] = chance.drop_interval(before, after, groups)
    if groups is None:
        found["mcnemar_p"] = chance.mcnemar(before, after)
    return found


def set_figures(original: Tensor, artifact: Tensor, labels: Tensor) -> dict[str, float | None]:
    """How well both decide on sets of classes, `[texts, classes]` of bool."""
    found: dict[str, float | None] = {}
    for prefix, sets in (("", artifact), ("original_", original)):
        counts = [each.sum(0).double() for each in (sets & labels, sets, labels)]
        found[f"{prefix}macro_f1"] = macro_f1(*counts)
        found[f"{prefix}micro_f1"] = macro_f1(*(each.sum().reshape(1) for each in counts))
    return found


def macro_f1(hits: Tensor, said: Tensor, right: Tensor) -> float | None:
    """The mean over classes of F1, from how often each is said rightly, said, and right, `[classes]`.

    Classes that nobody says and that are never right count for nothing; None where there are no others.
    """
    known = said + right > 0
    return (2 * hits[known] / (said + right)[known]).mean().item() if known.any() else None


def _counts(classes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    count = int(max(classes.max(), labels.max())) + 1
    hits, said, right = (
        torch.bincount(each, minlength=count).double() for each in (classes[classes == labels], classes, labels)
    )
    return hits, said, right


def matthews(classes: Tensor, labels: Tensor) -> float:
    """The correlation of what is said with what is right (Gorodkin, 2004); 0 where one of them never changes."""
    hits, said, right = _counts(classes, labels)
    count = float(len(labels))
    together = count * hits.sum() - said @ right
    spread = (count**2 - said @ said) * (count**2 - right @ right)
    return (together / spread.sqrt()).item() if spread > 0 else 0.0


def calibration_error(confidence: Tensor, right: Tensor) -> float:
    """By how much confidence and accuracy differ, in the mean over texts by bins of equal width of confidence."""
    bins: NDArray[np.int64] = np.minimum((confidence.double().numpy() * _BINS).astype(np.int64), _BINS - 1)
    surplus = np.bincount(bins, weights=(confidence.double() - right.double()).numpy(), minlength=_BINS)
    return float(np.abs(surplus).sum() / len(right))
