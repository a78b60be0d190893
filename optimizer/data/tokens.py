"""Texts as a model's tokens, by the tokenizer that lies beside the original."""

import inspect
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
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
    """Tokenized texts: what of `names` the tokenizer gives; `length` is the most tokens that one example may have.

    A `prompt` goes before each text, which is made `lower` case if so. Of pairs that are `apart` each text is an
    example of its own: those of pair n have the positions 2 n and 2 n + 1.
    """

    texts: Texts
    tokenizer: Any
    names: tuple[str, ...]
    length: int
    pad_id: int
    seed: int
    prompt: str = ""
    lower: bool = False
    apart: bool = False

    @cached_property
    def _asked(self) -> Sequence[Text | tuple[str, ...]]:
        """What the example at each position is made of."""
        if self.texts.tokens is not None:
            return self.texts.tokens
        if not self.apart:
            return self.texts.texts
        return [each for text in self.texts.texts for each in ([text] if isinstance(text, str) else text)]

    @property
    def is_apart(self) -> bool:
        """Whether the texts of pairs are examples of their own."""
        return len(self._asked) > len(self.texts.texts)

    @property
    def data(self) -> str:
        """The row's `data`."""
        return self.texts.name

    def examples(self, count: int | None) -> dict[int, Example]:
        """A seeded sample of `count` texts, or all, by their position; texts without a token are left out."""
        chosen = self._chosen(count)
        encoded = self._encode([self._asked[index] for index in chosen], self.length, split=self._split)
        examples = {index: example for index, example in zip(chosen, encoded, strict=True) if len(example["input_ids"])}
        if not examples:
            raise EvaluationError(f"{self.data}: no text has a token")
        return examples

    def blank(self, count: int | None, examples: Mapping[int, Example]) -> int:
        """How many of the texts that `examples(count)` were made of say nothing."""
        return sum(index not in examples or _is_blank(self._asked[index]) for index in self._chosen(count))

    def cut(self, examples: Mapping[int, Example]) -> int:
        """How many of these examples are less than their text."""
        full = [index for index, example in examples.items() if len(example["input_ids"]) >= self.length]
        whole = self._encode([self._asked[index] for index in full], None, split=self._split) if full else []
        return sum(len(example["input_ids"]) > self.length for example in whole)

    def _chosen(self, count: int | None) -> Sequence[int]:
        every = range(len(self.texts.texts))
        whole = count is None or count >= len(every)
        chosen = every if whole else sorted(random.Random(self.seed).sample(every, count or 0))
        return [2 * place + second for place in chosen for second in (0, 1)] if self.is_apart else chosen

    def word_starts(self, positions: Sequence[int]) -> dict[int, Tensor]:
        """For each token of these examples the place of the word that begins there, -1 where none does.

        Where the tokenizer does not say what a word is, every token but the special ones is one.
        """
        asked = [self._asked[position] for position in positions]
        encoded = self._tokenized(asked, self.length, split=self._split)
        starts = {}
        for row, position in enumerate(positions):
            if self.tokenizer.is_fast:
                words = encoded.word_ids(row)
            else:
                ids = encoded["input_ids"][row]
                special = self.tokenizer.get_special_tokens_mask(ids, already_has_special_tokens=True)
                words = [None if each else place for place, each in enumerate(special)]
            before = [None, *words]
            places = [-1 if word is None or word == before[place] else word for place, word in enumerate(words)]
            starts[position] = torch.tensor(places, dtype=torch.long)
        return starts

    def spans(self, positions: Sequence[int]) -> dict[int, list[tuple[int, int] | None]]:
        """For each token of these pairs its characters in the second text, None for one of the first and special ones.

        Nothing where the tokenizer does not say it, or a text is no pair.
        """
        asked = [self._asked[position] for position in positions]
        if not self.tokenizer.is_fast or any(isinstance(text, str) for text in asked):
            return {}
        encoded = self._tokenized(asked, self.length, split=False, return_offsets_mapping=True)
        return {
            position: [
                (place[0], place[1]) if part == 1 else None
                for place, part in zip(encoded["offset_mapping"][row], encoded.sequence_ids(row), strict=True)
            ]
            for row, position in enumerate(positions)
        }

    @property
    def _split(self) -> bool:
        return self.texts.tokens is not None

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

    def _tokenized(
        self, texts: Sequence[Text | tuple[str, ...]], length: int | None, *, split: bool, **more: bool
    ) -> Any:
        cut: dict[str, Any] = {"truncation": length is not None, "max_length": length, "padding": False, **more}
        if split:
            return self.tokenizer([list(words) for words in texts], is_split_into_words=True, **cut)
        first = [self._read(text if isinstance(text, str) else text[0]) for text in texts]
        second = [self._read(text[1]) for text in texts if not isinstance(text, str)]
        return self.tokenizer(first, second or None, **cut)

    def _read(self, text: str) -> str:
        whole = self.prompt + text
        return whole.lower() if self.lower else whole

    def _encode(
        self, texts: Sequence[Text | tuple[str, ...]], length: int | None, *, split: bool = False
    ) -> list[Example]:
        encoded = self._tokenized(texts, length, split=split)
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


def _is_blank(text: Text | tuple[str, ...]) -> bool:
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
