"""Seeded random inputs of the right shape, for models whose true inputs are not to be had here."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from optimizer.data.tokens import Example
from optimizer.errors import EvaluationError
from optimizer.model.tokenizer import positions

_EXAMPLES = 64
_LENGTH = 64
_SAMPLING_RATE = 16_000  # one second of sound, in Hz
_IMAGE_SIZE = 224
_CHANNELS = 3


@dataclass(frozen=True)
class RandomInputs:
    """Random token ids, images or sound for `model`, which may be on the meta device."""

    model: Any
    seed: int
    data: str = "random"
    pad_id: int = 0

    def examples(self, count: int | None) -> dict[int, Example]:
        """At most `count` examples, by their position."""
        generator = torch.Generator().manual_seed(self.seed)
        number = _EXAMPLES if count is None else min(count, _EXAMPLES)
        return {index: self._example(generator, _LENGTH) for index in range(number)}

    def block(self, batch_size: int, length: int) -> dict[str, Tensor]:
        """One batch; `length` counts for tokens alone."""
        generator = torch.Generator().manual_seed(self.seed)
        rows = [self._example(generator, length) for _ in range(batch_size)]
        block = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
        if "input_ids" in block:
            block["attention_mask"] = torch.ones_like(block["input_ids"])
        return block

    def _example(self, generator: Generator, length: int) -> Example:
        name = self.model.main_input_name
        if name not in _DRAW:
            raise EvaluationError(
                f"no random inputs are known for '{name}', which this model takes; write evaluation=none"
            )
        return {name: _DRAW[name](self.model, generator, length)}


def _input_ids(model: Any, generator: Generator, length: int) -> Tensor:
    config = model.config.get_text_config()
    length = min(length, positions(model) or length)
    return torch.randint(config.vocab_size, (length,), generator=generator)


def _pixel_values(model: Any, generator: Generator, length: int) -> Tensor:
    size = getattr(model.config, "image_size", None) or _IMAGE_SIZE
    height, width = (size, size) if isinstance(size, int) else size
    return torch.randn(getattr(model.config, "num_channels", _CHANNELS), height, width, generator=generator)


def _input_values(model: Any, generator: Generator, length: int) -> Tensor:
    bins = getattr(model.config, "num_mel_bins", None)
    if bins:  # a spectrogram
        return torch.randn(model.config.max_length, bins, generator=generator)
    return torch.randn(_SAMPLING_RATE, generator=generator)


_DRAW: dict[str, Callable[[Any, Generator, int], Tensor]] = {
    "input_ids": _input_ids,
    "pixel_values": _pixel_values,
    "input_values": _input_values,
}
