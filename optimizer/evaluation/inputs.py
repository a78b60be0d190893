"""What both models are asked: tokenized texts, or random inputs where there are none."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from optimizer.data.texts import Texts
from optimizer.data.tokens import Example, TokenInputs, token_inputs
from optimizer.errors import EvaluationError
from optimizer.evaluation.random_inputs import RandomInputs
from optimizer.model.embedding import reading
from optimizer.model.loading import on_meta
from optimizer.model.task import Task
from optimizer.model.tokenizer import load_tokenizer, positions, tokenizer_files

Inputs = TokenInputs | RandomInputs

_TEXTS = 16  # that each image is held against
_UNLIMITED = 2**31
_LOGITS_AT_ONCE = 2**27  # that one model gives for one batch: 512 MiB in float32


@dataclass(frozen=True)
class Batch:
    """Inputs `[examples, …]` as a model takes them, and the position of each example among the texts."""

    inputs: dict[str, Tensor]
    positions: tuple[int, ...]


def prepare(directory: Path, task: Task, texts: Texts, seed: int) -> Inputs:
    """Inputs for the model in `directory`, by the tokenizer that lies there where it takes text."""
    model = on_meta(directory, task)
    if task == "zero-shot-image-classification":
        return RandomInputs(model, seed, texts=_TEXTS)
    tokenizer = load_tokenizer(directory) if model.main_input_name == "input_ids" else None
    if tokenizer is None:
        return RandomInputs(model, seed)
    inputs = token_inputs(texts, tokenizer, model, seed)
    if task != "encoder":
        return inputs
    how = reading(directory)
    length = min(how.length or inputs.length, positions(model) or _UNLIMITED)
    return replace(inputs, length=length, prompt=how.prompt, lower=how.lower, apart=True)


def reads_texts(directory: Path, task: Task, model: Any) -> bool:
    """Whether the model in `directory`, which may be on the meta device, is asked texts: see `prepare`."""
    takes_tokens = task != "zero-shot-image-classification" and model.main_input_name == "input_ids"
    return takes_tokens and bool(tokenizer_files(directory))


def prepare_artifact(directory: Path, original: Path, task: Task, inputs: Inputs) -> Inputs:
    """Inputs for the artifact of `original`, whose own are `inputs`: these, unless it has a tokenizer of its own."""
    files = tokenizer_files(directory)
    if isinstance(inputs, RandomInputs) or not files or files == tokenizer_files(original):
        return inputs
    return prepare(directory, task, inputs.texts, inputs.seed)


def batches(examples: Mapping[int, Example], batch_size: int, pad_id: int, logits_per_token: int) -> Iterator[Batch]:
    """The examples sorted by length, longest first, padded within each batch.

    A batch is smaller than `batch_size` where its logits would take more memory than is reasonable.
    """
    order = sorted(examples, key=lambda position: (-length(examples[position]), position))
    start = 0
    while start < len(order):
        per_example = length(examples[order[start]]) * logits_per_token
        size = max(1, min(batch_size, _LOGITS_AT_ONCE // per_example))
        positions = tuple(order[start : start + size])
        yield Batch(_padded([examples[position] for position in positions], pad_id), positions)
        start += size


def mixed(examples: Mapping[int, Example], batch_size: int, pad_id: int, width: int = 0) -> Iterator[Batch]:
    """The examples in the order of their positions, short ones beside long ones, padded to at least `width` tokens."""
    positions = sorted(examples)
    for start in range(0, len(positions), batch_size):
        chosen = tuple(positions[start : start + batch_size])
        yield Batch(_padded([examples[position] for position in chosen], pad_id, width), chosen)


def alike(plan: Sequence[Batch], examples: Mapping[int, Example], pad_id: int) -> list[Batch]:
    """The same batches of the same texts as in `plan`, by other examples of them.

    Raises EvaluationError for a text that has no example here.
    """
    for position in (position for batch in plan for position in batch.positions):
        if position not in examples:
            raise EvaluationError(f"text {position + 1} has no token by the artifact's tokenizer; write data.path=FILE")
    return [Batch(_padded([examples[at] for at in batch.positions], pad_id), batch.positions) for batch in plan]


def length(example: Example) -> int:
    return max(len(values) for values in example.values())


def _padded(examples: list[Example], pad_id: int, width: int = 0) -> dict[str, Tensor]:
    """The examples under each other; those with tokens are at least `width` wide."""
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
        if (more := width - inputs["input_ids"].shape[1]) > 0:
            inputs = {
                name: pad(values, (0, more), value=pad_id if name == "input_ids" else 0)
                for name, values in inputs.items()
            }
    return inputs
