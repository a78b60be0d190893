"""Texts as a model's tokens, by the tokenizer that lies beside the original."""

import inspect
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from optimizer.data.texts import Text, Texts
from optimizer.errors import EvaluationError
from optimizer.model.tokenizer import most_tokens, pad_id

Example = dict[str, Tensor]
"""One example's inputs by name, without a batch axis and without padding."""

_NAMES = ("input_ids", "token_type_ids")
_CHARACTERS_PER_TOKEN = 16  # more than in any usual text


@dataclass(frozen=True)
class TokenInputs:
    """Tokenized texts: what of `names` the tokenizer gives; `length` is the most tokens that one example may have."""

    texts: Texts
    tokenizer: Any
    names: tuple[str, ...]
    length: int
    pad_id: int
    seed: int

    @property
    def data(self) -> str:
        """The row's `data`."""
        return self.texts.name

    def examples(self, count: int | None) -> dict[int, Example]:
        """A seeded sample of `count` texts, or all, by their position; texts without a token are left out."""
        chosen = self._chosen(count)
        encoded = self._encode([self.texts.texts[index] for index in chosen], self.length)
        examples = {index: example for index, example in zip(chosen, encoded, strict=True) if len(example["input_ids"])}
        if not examples:
            raise EvaluationError(f"{self.data}: no text has a token")
        return examples

    def blank(self, count: int | None, examples: Mapping[int, Example]) -> int:
        """How many of the texts that `examples(count)` were made of say nothing."""
        return sum(index not in examples or _is_blank(self.texts.texts[index]) for index in self._chosen(count))

    def cut(self, examples: Mapping[int, Example]) -> int:
        """How many of these examples are less than their text."""
        full = [index for index, example in examples.items() if len(example["input_ids"]) >= self.length]
        whole = self._encode([self.texts.texts[index] for index in full], None) if full else []
        return sum(len(example["input_ids"]) > self.length for example in whole)

    def _chosen(self, count: int | None) -> Sequence[int]:
        every = range(len(self.texts.texts))
        if count is None or count >= len(every):
            return every
        return sorted(random.Random(self.seed).sample(every, count))

    def block(self, batch_size: int, length: int) -> dict[str, Tensor]:
        """One batch of running text, `[batch_size, length]` tokens without padding; less where the model takes less."""
        length = min(length, self.length)
        texts = [text if isinstance(text, str) else " ".join(text) for text in self.texts.texts]
        runs = [_running(texts, index % len(texts), length * _CHARACTERS_PER_TOKEN) for index in range(batch_size)]
        rows = self._encode(runs, length)
        shortest = min(len(row["input_ids"]) for row in rows)
        if not shortest:
            raise EvaluationError(f"{self.data}: no text has a token")
        block = {name: torch.stack([row[name][:shortest] for row in rows]) for name in rows[0]}
        return block | {"attention_mask": torch.ones_like(block["input_ids"])}

    def _encode(self, texts: Sequence[Text], length: int | None) -> list[Example]:
        first = [text if isinstance(text, str) else text[0] for text in texts]
        second = [text[1] for text in texts if not isinstance(text, str)]
        encoded = self.tokenizer(first, second or None, truncation=length is not None, max_length=length, padding=False)
        return [
            {name: torch.tensor(encoded[name][index], dtype=torch.long) for name in self.names if name in encoded}
            for index in range(len(texts))
        ]


def token_inputs(texts: Texts, tokenizer: PreTrainedTokenizerBase, model: Any, seed: int) -> TokenInputs:
    """The texts for `model`, which may be on the meta device."""
    accepted = inspect.signature(model.forward).parameters
    return TokenInputs(
        texts=texts,
        tokenizer=tokenizer,
        names=tuple(name for name in _NAMES if name in accepted),
        length=most_tokens(tokenizer, model),
        pad_id=pad_id(tokenizer, model.config.get_text_config()),
        seed=seed,
    )


def _is_blank(text: Text) -> bool:
    return not (text if isinstance(text, str) else "".join(text)).strip()


def _running(texts: list[str], start: int, characters: int) -> str:
    """The texts one after another from `start` on, over and over, cut after so many characters."""
    parts, length = list[str](), 0
    for text in islice(cycle(texts), start, None):
        parts.append(f"{text} ")
        length += len(parts[-1])
        if length >= characters:
            break
    return "".join(parts)[:characters]
