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
_FRAMES_PER_POSITION = 2  # of Whisper's encoder, whose second convolution has a stride of 2
_IMAGE_SIZE = 224
_CHANNELS = 3


@dataclass(frozen=True)
class RandomInputs:
    """Random token ids, images or sound for `model`, which may be on the meta device.

    With `texts` an example is an image and so many texts, `[texts, tokens]` ids that are the same for all images.
    """

    model: Any
    seed: int
    texts: int = 0
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
        name = "pixel_values" if self.texts else self.model.main_input_name
        if name not in _DRAW:
            raise EvaluationError(
                f"no random inputs are known for '{name}', which this model takes; write evaluation=none"
            )
        example = {name: _DRAW[name](self.model, generator, length)}
        return example | {"input_ids": self._same_texts()} if self.texts else example

    def _same_texts(self) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        ids = torch.stack([_input_ids(self.model, generator, _LENGTH) for _ in range(self.texts)])
        end = getattr(self.model.config.get_text_config(), "eos_token_id", None)
        if isinstance(end, int):
            ids[:, -1] = end  # by which CLIP finds what it has made of a text
        return ids


def _input_ids(model: Any, generator: Generator, length: int) -> Tensor:
    config = model.config.get_text_config()
    length = min(length, positions(model) or length)
    return torch.randint(config.vocab_size, (length,), generator=generator)


def _pixel_values(model: Any, generator: Generator, length: int) -> Tensor:
    config = getattr(model.config, "vision_config", model.config)
    size = getattr(config, "image_size", None) or _IMAGE_SIZE
    height, width = (size, size) if isinstance(size, int) else size
    return torch.randn(getattr(config, "num_channels", _CHANNELS), height, width, generator=generator)


def _input_values(model: Any, generator: Generator, length: int) -> Tensor:
    bins = getattr(model.config, "num_mel_bins", None)
    if bins:  # a spectrogram
        return torch.randn(model.config.max_length, bins, generator=generator)
    return torch.randn(_SAMPLING_RATE, generator=generator)


def _input_features(model: Any, generator: Generator, length: int) -> Tensor:
    config = model.config
    if not hasattr(config, "num_mel_bins"):
        raise EvaluationError(f"no random sound is known for {type(model).__name__}; write evaluation=none")
    return torch.randn(config.num_mel_bins, _FRAMES_PER_POSITION * config.max_source_positions, generator=generator)


_DRAW: dict[str, Callable[[Any, Generator, int], Tensor]] = {
    "input_ids": _input_ids,
    "pixel_values": _pixel_values,
    "input_values": _input_values,
    "input_features": _input_features,
}
