"""Tiny models ready to be converted, with inputs for them."""

from pathlib import Path
from typing import Any

import torch

from optimizer.model.loading import load

VOCABULARY = 25  # of the tiny models


def model_of(directory: Path) -> Any:
    """The model in a directory, for inference."""
    return load(directory)


def inputs(lengths: list[int], seed: int = 0, length: int | None = None) -> dict[str, torch.Tensor]:
    """Random texts of these lengths, padded to the longest or to `length`."""
    draw = torch.Generator().manual_seed(seed)
    width = length or max(lengths)
    ids = torch.randint(5, VOCABULARY, (len(lengths), width), generator=draw)
    mask = (torch.arange(width)[None] < torch.tensor(lengths)[:, None]).long()
    types = (torch.arange(width)[None] > width // 2).long().expand_as(mask) * mask
    return {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": types}


def example_inputs() -> dict[str, torch.Tensor]:
    """What models are converted with."""
    return inputs([7, 5])


def calibration() -> list[dict[str, torch.Tensor]]:
    """Texts at their own lengths."""
    return [inputs([4 + seed % 9], seed) for seed in range(20)]


SHAPES = [[9], [3], [12, 4, 7], [5, 5, 5, 5, 5, 2, 1], [31, 30]]
"""Lengths of texts in batches that no model was converted with."""


def difference(one: Any, other: Any, mask: torch.Tensor) -> float:
    """The largest difference of two answers where there is no padding; the second may have more outputs."""
    assert list(one) == [name for name in other if name in one]
    largest = 0.0
    for name, value in one.items():
        tokenwise = value.ndim == 3 or name in ("start_logits", "end_logits")
        pair = (value[mask.bool()], other[name][mask.bool()]) if tokenwise else (value, other[name])
        largest = max(largest, (pair[0] - pair[1]).abs().max().item())
    return largest


def assert_answers_alike(engine: Any, model: Any) -> None:
    """An engine says what the model says, at batch sizes and lengths that the graph was not converted with."""
    for lengths in SHAPES:
        given = inputs(lengths)
        with torch.no_grad():
            expected = model(**given)
        assert difference(engine(**given), expected, given["attention_mask"]) < 1e-4
