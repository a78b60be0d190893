"""Texts as a model's tokens, each without padding."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

Examples = Sequence[Mapping[str, Tensor]]
"""Texts, each `[1, tokens]` by the names of the model's inputs."""

FEW = 512
"""Texts that ranges of activations and curvatures rest on, the first of however many: each costs time."""


def input_names(model: Any) -> tuple[str, ...]:
    """What an encoder is given: ids and mask, and the types of tokens if it knows more than one."""
    types = (
        getattr(model.config, "type_vocab_size", 0) > 1
        and "token_type_ids" in inspect.signature(model.forward).parameters
    )
    return ("input_ids", "attention_mask", *(("token_type_ids",) if types else ()))


def of_one_length(examples: Examples, most: int) -> Iterator[dict[str, Tensor]]:
    """Batches of at most `most` texts, the shortest first, those of one length together, so that none is padded."""
    for _, same in groupby(sorted(examples, key=tokens), tokens):
        group = list(same)
        for start in range(0, len(group), most):
            part = group[start : start + most]
            yield {name: torch.cat([text[name] for text in part]) for name in part[0]}


def tokens(example: Mapping[str, Tensor]) -> int:
    """The length of a text in tokens."""
    return example["input_ids"].shape[1]
