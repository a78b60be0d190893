"""The tokenizer that lies in a model directory, and what a model asks of it."""

import hashlib
from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from optimizer.errors import EvaluationError, first_line

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json")
_OTHER_FILES = ("merges.txt", "added_tokens.json", "special_tokens_map.json")
_SENTENCEPIECE_FILES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
_DEFAULT_LENGTH = 512
_UNLIMITED = 1e20  # a model_max_length above this is transformers' way of saying that it is not known


def most_tokens(tokenizer: PreTrainedTokenizerBase, model: Any) -> int:
    """The most tokens that one text may have for `model`, which may be on the meta device."""
    declared = tokenizer.model_max_length if tokenizer.model_max_length < _UNLIMITED else None
    return min((limit for limit in (declared, positions(model)) if limit), default=_DEFAULT_LENGTH)


def positions(model: Any) -> int | None:
    """How many positions a model has, None if it does not say."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            return module.num_embeddings - module.padding_idx - 1  # RoBERTa's start after the padding's
    config = model.config.get_text_config()
    positions: int | None = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    return positions if positions and positions > 0 else None


def pad_id(tokenizer: PreTrainedTokenizerBase, config: Any) -> int:
    """The token that pads; any will do where none is meant for it, because padding is masked."""
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
