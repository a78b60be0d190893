"""The part of a context that answers a question."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_LONGEST = 15  # tokens of an answer


def best_span(starts: Tensor, ends: Tensor, offsets: Sequence[tuple[int, int] | None], context: str) -> dict[str, Any]:
    """The likeliest span: {"answer", "start", "end", "score"}, places in characters of the context.

    `starts` and `ends` are logits [tokens]; `offsets` are each token's characters in the context, None for a token
    outside it. The score is the product of the two probabilities among the context's tokens, a span at most 15 long.
    A context without a token has the empty answer, of score 0.
    """
    inside = torch.tensor([place is not None for place in offsets])
    if not inside.any():
        return {"answer": "", "start": 0, "end": 0, "score": 0.0}
    first, last = (logits.float().masked_fill(~inside, -torch.inf).softmax(-1) for logits in (starts, ends))
    scores = torch.outer(first, last).triu().tril(_LONGEST - 1)
    start, end = divmod(int(scores.argmax()), len(offsets))
    (begin, _), (_, finish) = offsets[start] or (0, 0), offsets[end] or (0, 0)
    score = scores[start, end].item()
    return {"answer": context[begin:finish], "start": begin, "end": finish, "score": score}
