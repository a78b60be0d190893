"""Figures of models with one score a text, rerankers and regressions: pure functions of scores `[texts]`."""

from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np
from torch import Tensor

from optimizer.evaluation.agreement import wilson


def figures(original: Tensor, artifact: Tensor, groups: Sequence[Hashable] | None) -> dict[str, float | None]:
    """How far the order of the texts is the original's; of `groups` how many have the same text first."""
    found: dict[str, float | None] = {
        "spearman": rank_correlation(original, artifact),
        "kendall": order_correlation(original, artifact),
    }
    return found if groups is None else found | _first_answers(original, artifact, groups)


def gold_figures(original: Tensor, artifact: Tensor, scores: Tensor) -> dict[str, float | None]:
    """How either model's scores follow those of people, `[texts]`."""
    return {
        "gold_spearman": rank_correlation(scores, artifact),
        "original_gold_spearman": rank_correlation(scores, original),
    }


def rank_correlation(first: Tensor, second: Tensor) -> float | None:
    """Spearman's: of the ranks, ties sharing the mean of theirs.

    None where `first` is in no order, 0 where `second` alone is in none.
    """
    if _is_flat(first) or _is_flat(second):
        return None if _is_flat(first) else 0.0
    from scipy.stats import spearmanr

    return float(spearmanr(first.double().numpy(), second.double().numpy()).statistic)


def order_correlation(first: Tensor, second: Tensor) -> float | None:
    """Kendall's tau-b: of the order of pairs, ties counted out; as `rank_correlation` where there is no order."""
    if _is_flat(first) or _is_flat(second):
        return None if _is_flat(first) else 0.0
    from scipy.stats import kendalltau

    return float(kendalltau(first.double().numpy(), second.double().numpy()).statistic)


def _is_flat(values: Tensor) -> bool:
    return bool((values == values[0]).all())


def _first_answers(original: Tensor, artifact: Tensor, groups: Sequence[Hashable]) -> dict[str, float | None]:
    """Of the groups of at least two texts, those whose text with the largest score is the same."""
    places: dict[Hashable, list[int]] = defaultdict(list)
    for place, group in enumerate(groups):
        places[group].append(place)
    asked = [np.array(there) for there in places.values() if len(there) > 1]
    if not asked:
        return {}
    before, after = original.numpy(), artifact.numpy()
    same = sum(int(before[there].argmax() == after[there].argmax()) for there in asked)
    low, high = wilson(same, len(asked))
    return {
        "first_answer_agreement": same / len(asked),
        "first_answer_agreement_low": low,
        "first_answer_agreement_high": high,
    }
