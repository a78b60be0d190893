"""The mathematics of agreement: pure functions of the two models' logits, and of counts.

Logits are `[rows, …, classes]`, floating point; rows are the examples, or the tokens where each token is answered.
`valid`, where given, is a boolean mask of the same shape: classes that a row does not have (padding) count for
nothing. All arithmetic is in float32, sums over rows in float64.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Literal

import torch
from torch import Tensor

Decision = Literal["class", "set", "number", "vector"]
"""What a row is: logits of one class (the largest) or a set (sigmoid above one half), numbers, or an embedding."""

IGNORED = -100
"""The target of a row that has none, as in torch.nn.functional.cross_entropy."""


def wilson(successes: float, trials: float, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a proportion (Wilson, JASA 22, 1927); of no trial there is none."""
    assert 0 <= successes <= trials
    assert trials > 0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / trials
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return (centre - half if successes else 0.0), (centre + half if successes < trials else 1.0)


def wilson_by_text(successes: Tensor, trials: Tensor) -> tuple[float, float]:
    """The same for a proportion over all `trials` `[texts]`, where those of one text are not independent.

    There are as many trials as independent ones would make the proportion vary as much as it does from text to text
    (Korn and Graubard, Survey Methodology 24, 1998), at most all; where it does not vary at all, as many as texts.
    """
    count, texts = float(trials.sum()), len(trials)
    share = float(successes.sum()) / count
    if share in (0, 1) or texts < 2:
        return wilson(share * texts, texts)
    variance = texts / (texts - 1) * float(((successes - share * trials) ** 2).sum()) / count**2
    effective = min(count, share * (1 - share) / variance) if variance else count
    return wilson(share * effective, effective)


def agrees(original: Tensor, artifact: Tensor, decision: Decision, valid: Tensor | None = None) -> Tensor:
    """Which rows are decided alike, `[rows]` of bool; a row with a NaN on either side is not."""
    if decision == "set":
        same = (original > 0) == (artifact > 0)  # sigmoid(x) > 1/2 where x > 0
    else:
        same = (_masked(original, valid).argmax(-1) == _masked(artifact, valid).argmax(-1)).unsqueeze(-1)
    broken = original.isnan() | artifact.isnan()
    if valid is not None:
        broken &= valid
    return same.flatten(1).all(1) & ~broken.flatten(1).any(1)


def differences(original: Tensor, artifact: Tensor, valid: Tensor | None = None) -> Tensor:
    """The absolute differences of all valid logits, flat; equal infinities differ by 0."""
    original, artifact = original.float(), artifact.float()
    absolute = torch.where(original == artifact, 0.0, (original - artifact).abs())
    return absolute.flatten() if valid is None else absolute[valid]


def divergence(original: Tensor, artifact: Tensor, decision: Decision, valid: Tensor | None = None) -> Tensor:
    """KL(original || artifact) of each row in nats, `[rows]`; distributions of one row are independent and add up.

    A row is one distribution over classes, or, where it decides a set, one of two outcomes for each class.
    """
    if decision == "set":
        original, artifact = _two_outcomes(original), _two_outcomes(artifact)
    log_p = _masked(original, valid).float().log_softmax(-1)
    log_q = _masked(artifact, valid).float().log_softmax(-1)
    p = log_p.exp()
    terms = torch.where(p == 0, 0.0, p * (log_p - log_q))
    return terms.sum(-1).clamp(min=0).unsqueeze(-1).flatten(1).sum(1)


def correct(logits: Tensor, targets: Tensor) -> Tensor:
    """Which rows `[rows, classes]` have their largest logit at their target `[rows]`; one with a NaN has not."""
    return (logits.argmax(-1) == targets) & ~logits.isnan().any(-1)


def negative_log_likelihood(logits: Tensor, targets: Tensor) -> Tensor:
    """-ln p(target) of each row that has a target, in nats; `targets` `[rows]` are class ids or IGNORED."""
    known = targets != IGNORED
    return torch.nn.functional.cross_entropy(logits[known].float(), targets[known], reduction="none")


def word_errors(original: Sequence[str], artifact: Sequence[str]) -> int:
    """The fewest words to put in, leave out or replace that make one text of the other (Levenshtein, 1966)."""
    row = list(range(len(artifact) + 1))
    for place, word in enumerate(original, 1):
        diagonal, row[0] = row[0], place
        for column, other in enumerate(artifact, 1):
            diagonal, row[column] = row[column], min(row[column] + 1, row[column - 1] + 1, diagonal + (word != other))
    return row[-1]


def cosine(original: Tensor, artifact: Tensor) -> Tensor:
    """The cosine of the angle between the two vectors of each row, `[rows]`."""
    return torch.nn.functional.cosine_similarity(original.double(), artifact.double(), dim=-1)


def _masked(logits: Tensor, valid: Tensor | None) -> Tensor:
    return logits if valid is None else logits.masked_fill(~valid, -math.inf)


def _two_outcomes(logits: Tensor) -> Tensor:
    """Logits of (yes, no) whose softmax is (sigmoid, 1 - sigmoid)."""
    return torch.stack([logits, torch.zeros_like(logits)], dim=-1)
