"""What both models are asked: tokenized texts, or random inputs where there are none."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from optimizer.evaluation.random_inputs import RandomInputs
from optimizer.evaluation.texts import Texts
from optimizer.evaluation.tokens import Example, TokenInputs, load_tokenizer, token_inputs

Inputs = TokenInputs | RandomInputs

_LOGITS_AT_ONCE = 2**27  # that one model gives for one batch: 512 MiB in float32


@dataclass(frozen=True)
class Batch:
    """Inputs `[examples, …]` as a model takes them, and the position of each example among the texts."""

    inputs: dict[str, Tensor]
    positions: tuple[int, ...]


def prepare(model: Any, directory: Path, texts: Texts, seed: int) -> Inputs:
    """Inputs for `model`, which may be on the meta device, by the tokenizer in `directory` where it takes text."""
    tokenizer = load_tokenizer(directory) if model.main_input_name == "input_ids" else None
    if tokenizer is None:
        return RandomInputs(model, seed)
    return token_inputs(texts, tokenizer, model, seed)


def batches(examples: Mapping[int, Example], batch_size: int, pad_id: int, logits_per_token: int) -> Iterator[Batch]:
    """The examples sorted by length, longest first, padded within each batch.

    A batch is smaller than `batch_size` where its logits would take more memory than is reasonable.
    """
    order = sorted(examples, key=lambda position: (-_length(examples[position]), position))
    start = 0
    while start < len(order):
        per_example = _length(examples[order[start]]) * logits_per_token
        size = max(1, min(batch_size, _LOGITS_AT_ONCE // per_example))
        positions = tuple(order[start : start + size])
        yield Batch(_padded([examples[position] for position in positions], pad_id), positions)
        start += size


def _length(example: Example) -> int:
    return max(len(values) for values in example.values())


def _padded(examples: list[Example], pad_id: int) -> dict[str, Tensor]:
    inputs = {
        name: pad_sequence(
            [example[name] for example in examples],
            batch_first=True,
            padding_value=pad_id if name == "input_ids" else 0,
        )
        for name in examples[0]
    }
    if "input_ids" in inputs:
        ones = [torch.ones_like(example["input_ids"]) for example in examples]
        inputs["attention_mask"] = pad_sequence(ones, batch_first=True)
    return inputs
