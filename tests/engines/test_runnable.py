"""How a batch is shared out to streams: equal work, all rows once, no token lost."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optimizer.engines.runnable import SHARED_TOKENS, Runnable, split


class Sums(Runnable):
    """A graph that answers with sums of token ids, and remembers in which shapes it was asked."""

    def run(self, parts: Any) -> Any:
        self.shapes = [part["input_ids"].shape for part in parts]
        return [[part["input_ids"].sum(1).astype(np.float32), part["input_ids"].astype(np.float32)] for part in parts]


def sums(parts: int) -> Sums:
    """Two outputs: one for each text, one for each token."""
    return Sums(object(), ["input_ids", "attention_mask"], ["pooler_output", "last_hidden_state"], parts)


def mask_of(lengths: list[int], width: int) -> np.ndarray:
    """Ones up to each length."""
    return (np.arange(width)[None] < np.array(lengths)[:, None]).astype(np.int64)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.integers(1, 5))
def test_all_rows_once_and_no_token_lost(lengths: list[int], parts: int) -> None:
    found = split(mask_of(lengths, 9), parts)
    rows = [np.arange(len(lengths))[chosen] for chosen, _ in found]
    assert sorted(np.concatenate(rows).tolist()) == list(range(len(lengths)))
    assert 1 <= len(found) <= min(parts, len(lengths))
    for chosen, (_, end) in zip(rows, found, strict=True):
        assert end == max(1, *(lengths[row] for row in chosen))


def test_parts_have_about_equal_work() -> None:
    found = split(mask_of([100] + [10] * 10, 100), 2)
    assert [(np.arange(11)[chosen].tolist(), end) for chosen, end in found] == [(list(range(1, 11)), 10), ([0], 100)]
    full = split(mask_of([5] * 7, 5), 3)
    assert [np.arange(7)[chosen].size for chosen, _ in full] == [2, 2, 3]


def test_padding_before_a_text_is_kept() -> None:
    mask = mask_of([2, 4], 4)[:, ::-1]
    assert [end for _, end in split(mask, 2)] == [4, 4]


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_answers_come_back_in_their_place(parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optimizer.engines.runnable.SHARED_TOKENS", 1)
    mask = torch.from_numpy(mask_of([3, 6, 1, 4], 8))
    ids = torch.arange(1, 33).reshape(4, 8) * mask
    answer = sums(parts)(input_ids=ids, attention_mask=mask, unknown=None)
    assert torch.equal(answer.pooler_output, ids.sum(1).float())
    assert torch.equal(answer.last_hidden_state, ids.float())
    assert torch.equal(answer[0], answer["pooler_output"])


def test_small_batches_are_not_shared() -> None:
    model = sums(2)
    ids = torch.ones(2, SHARED_TOKENS // 2, dtype=torch.int32)
    model(input_ids=ids)
    assert len(model.shapes) == 2
    model(input_ids=ids[:, 1:])
    assert len(model.shapes) == 1


def test_no_texts() -> None:
    answer = sums(2)(input_ids=torch.ones(0, 4, dtype=torch.long))
    assert answer.pooler_output.shape == (0,)
