"""What a model has written, as words."""

from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from optimizer.model.tokenizer import load_tokenizer


class Words:
    """The words of generated tokens, by the tokenizer of the original; without one, each token is a word."""

    def __init__(self, original: Path, config: Any) -> None:
        self._original = original
        ends = getattr(config.get_text_config(), "eos_token_id", None)
        self._ends = [ends] if isinstance(ends, int) else list(ends or ())

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(self._original)

    def of(self, ids: Tensor | None) -> list[list[str]]:
        """The words of each row of `[examples, 1 + tokens]`, after its start token and before its first end."""
        assert ids is not None
        if self._tokenizer is not None:
            return [text.split() for text in self._tokenizer.batch_decode(ids, skip_special_tokens=True)]
        return [self._up_to_end(row) for row in ids[:, 1:].tolist()]

    def _up_to_end(self, ids: list[int]) -> list[str]:
        end = next((place for place, token in enumerate(ids) if token in self._ends), len(ids))
        return [str(token) for token in ids[:end]]
