"""Texts as a model's tokens, by the tokenizer that lies beside the original."""

import hashlib
import inspect
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from optimizer.data.texts import Text, Texts
from optimizer.errors import EvaluationError, first_line

Example = dict[str, Tensor]
"""One example's inputs by name, without a batch axis and without padding."""

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json")
_OTHER_FILES = ("merges.txt", "added_tokens.json", "special_tokens_map.json")
_SENTENCEPIECE_FILES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
_NAMES = ("input_ids", "token_type_ids")
_DEFAULT_LENGTH = 512
_UNLIMITED = 1e20  # a model_max_length above this is transformers' way of saying that it is not known
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
        chosen: Sequence[int] = range(len(self.texts.texts))
        if count is not None and count < len(chosen):
            chosen = sorted(random.Random(self.seed).sample(chosen, count))
        encoded = self._encode([self.texts.texts[index] for index in chosen], self.length)
        examples = {index: example for index, example in zip(chosen, encoded, strict=True) if len(example["input_ids"])}
        if not examples:
            raise EvaluationError(f"{self.data}: no text has a token")
        return examples

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

    def _encode(self, texts: Sequence[Text], length: int) -> list[Example]:
        first = [text if isinstance(text, str) else text[0] for text in texts]
        second = [text[1] for text in texts if not isinstance(text, str)]
        encoded = self.tokenizer(first, second or None, truncation=True, max_length=length, padding=False)
        return [
            {name: torch.tensor(encoded[name][index], dtype=torch.long) for name in self.names if name in encoded}
            for index in range(len(texts))
        ]


def token_inputs(texts: Texts, tokenizer: PreTrainedTokenizerBase, model: Any, seed: int) -> TokenInputs:
    """The texts for `model`, which may be on the meta device."""
    declared = tokenizer.model_max_length if tokenizer.model_max_length < _UNLIMITED else None
    limits = [limit for limit in (declared, positions(model)) if limit]
    accepted = inspect.signature(model.forward).parameters
    return TokenInputs(
        texts=texts,
        tokenizer=tokenizer,
        names=tuple(name for name in _NAMES if name in accepted),
        length=min(limits, default=_DEFAULT_LENGTH),
        pad_id=_pad_id(tokenizer, model.config.get_text_config()),
        seed=seed,
    )


def _running(texts: list[str], start: int, characters: int) -> str:
    """The texts one after another from `start` on, over and over, cut after so many characters."""
    parts, length = list[str](), 0
    for text in islice(cycle(texts), start, None):
        parts.append(f"{text} ")
        length += len(parts[-1])
        if length >= characters:
            break
    return "".join(parts)[:characters]


def positions(model: Any) -> int | None:
    """How many positions a model has, None if it does not say."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            return module.num_embeddings - module.padding_idx - 1  # RoBERTa's start after the padding's
    config = model.config.get_text_config()
    positions: int | None = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    return positions if positions and positions > 0 else None


def _pad_id(tokenizer: PreTrainedTokenizerBase, config: Any) -> int:
    """Any token will do where none is meant for it: padding is masked."""
    for value in (tokenizer.pad_token_id, getattr(config, "pad_token_id", None), getattr(config, "eos_token_id", None)):
        if isinstance(value, int) and value >= 0:
            return value
    return 0


def load_tokenizer(directory: Path) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a model directory, None where there is none.

    Raises EvaluationError when there is one that cannot be loaded.
    """
    bare = not any((directory / name).exists() for name in _TOKENIZER_FILES)
    try:
        if not bare:
            return AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
        for name in _SENTENCEPIECE_FILES:
            if (directory / name).exists():
                return _sentencepiece(directory / name)
    except Exception as error:
        raise EvaluationError(f"the tokenizer in '{directory.name}' cannot be loaded: {first_line(error)}") from error
    return None


def tokenizer_files(directory: Path) -> dict[str, str]:
    """The sha256 of each file that makes up the tokenizer of a model directory."""
    names = (*_TOKENIZER_FILES, *_OTHER_FILES, *_SENTENCEPIECE_FILES)
    paths = [path for name in names if (path := directory / name).is_file()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def _sentencepiece(path: Path) -> PreTrainedTokenizerBase:
    """A SentencePiece model with no word about the tokenizer's class.

    AutoTokenizer guesses one, and tokenizes the first word differently from SentencePiece itself.
    """
    from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

    return SentencePieceBackend(vocab_file=str(path))
