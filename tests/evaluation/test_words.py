"""The words of what is written, with and without a tokenizer."""

from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoConfig

from optimizer.evaluation.words import Words

# Of the fixture's sequence to sequence model; the start token pads, too.
END, START, THE, CAT, DOG, SEES = 0, 1, 2, 4, 5, 8
IDS = torch.tensor([[START, THE, CAT, SEES, END], [START, DOG, END, START, START], [START, END, CAT, START, START]])


def test_a_tokenizers_words(tiny_model: Callable[..., Path]) -> None:
    original = tiny_model("seq2seq-lm")
    words = Words(original, AutoConfig.from_pretrained(original))
    assert words.of(IDS[:2]) == [["the", "cat", "sees"], ["dog"]]


def test_without_a_tokenizer_tokens_are_words_up_to_the_end(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    words = Words(tmp_path, AutoConfig.from_pretrained(tiny_model("seq2seq-lm")))
    assert words.of(IDS) == [["2", "4", "8"], ["5"], []]
    assert words.of(torch.tensor([[START, THE, CAT]])) == [["2", "4"]]
