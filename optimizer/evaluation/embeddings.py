"""Figures of embedding models: pure functions of the vectors `[texts, width]` that original and artifact deploy."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from optimizer.evaluation.agreement import cosine, wilson
from optimizer.evaluation.scores import rank_correlation

_NEAREST = 10
_MOST = 10_000  # texts that neighbours are sought among: their number goes with the square
_ROWS_AT_ONCE = 1024
_LOW = 0.01  # the share of texts that are less alike


def figures(original: Tensor, artifact: Tensor, distinct: Tensor) -> dict[str, float]:
    """How alike the vectors are, and how many of the texts at the places `distinct` have the same neighbours.

    A text's neighbours are those of the others that its vector has the largest cosines with, by either model's own
    vectors. Of more than 10,000 texts as many are taken, evenly. Without two texts there are no neighbours.
    """
    alike = cosine(original, artifact)
    found = {"cosine_similarity": alike.mean().item(), "cosine_similarity_p1": torch.quantile(alike, _LOW).item()}
    if len(distinct) > _MOST:
        distinct = distinct[torch.linspace(0, len(distinct) - 1, _MOST).long()]
    if len(distinct) < 2:
        return found
    before, after = neighbours(original[distinct]), neighbours(artifact[distinct])
    same = int((before[:, 0] == after[:, 0]).sum())
    low, high = wilson(same, len(distinct))
    shared = (before.unsqueeze(2) == after.unsqueeze(1)).any(2)
    return found | {
        "neighbour_agreement": same / len(distinct),
        "neighbour_agreement_low": low,
        "neighbour_agreement_high": high,
        "neighbour_overlap_10": shared.double().mean().item(),
    }


def neighbours(vectors: Tensor) -> Tensor:
    """The places of the ten nearest others of each row, nearest first, `[rows, 10]`; fewer where there are fewer."""
    unit = normalize(vectors.float(), dim=1)
    count = min(_NEAREST, len(unit) - 1)
    nearest = []
    for start in range(0, len(unit), _ROWS_AT_ONCE):
        cosines = unit[start : start + _ROWS_AT_ONCE] @ unit.T
        itself = torch.arange(len(cosines))
        cosines[itself, itself + start] = -torch.inf
        nearest.append(cosines.topk(count, dim=1).indices)
    return torch.cat(nearest)


def gold_figures(
    original: tuple[Tensor, Tensor], artifact: tuple[Tensor, Tensor], scores: Tensor
) -> dict[str, float | None]:
    """How either model's cosines of pairs, twice `[pairs, width]`, follow the scores `[pairs]` of people."""
    return {
        "gold_spearman": rank_correlation(scores, cosine(*artifact)),
        "original_gold_spearman": rank_correlation(scores, cosine(*original)),
    }
