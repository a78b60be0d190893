"""Codes with a scale for each row and column: bit for bit, smaller than with one histogram, never something else."""

import struct
import zlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from payloads import assert_comes_back, assert_same

from optimizer.model.weight import Codes, Weight
from optimizer.packing import classes, codec, grid
from optimizer.packing.payload import DTYPES, PayloadError, pack, unpack

HEAD = 18


def made(
    rows: int, columns: int, *stack: int, seed: int = 0, spread: int = 20, dtype: torch.dtype = torch.float32
) -> Codes:
    """Codes of a normal distribution over steps that differ."""
    draw = torch.Generator().manual_seed(seed)
    of_rows = grid.scales((torch.randint(-spread, spread + 1, (*stack, rows, 1), generator=draw) * 16).to(torch.int16))
    of_columns = grid.scales((torch.randint(-6, 7, (*stack, 1, columns), generator=draw) * 16).to(torch.int16))
    values = (torch.randn(*stack, rows, columns, generator=draw) / (of_rows * of_columns)).round()
    return Codes(values.clamp(-127, 127).to(torch.int8), of_rows, dtype, of_columns)


def weight(codes: Codes) -> Weight:
    return Weight("layer.weight", codes, "linear", "layer")


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 3), st.sampled_from(DTYPES))
def test_they_come_back_bit_for_bit(rows: int, columns: int, stack: int, dtype: torch.dtype) -> None:
    codes = made(rows, columns, *([stack] if stack else []), dtype=dtype)
    assert_comes_back(codes)


@pytest.mark.parametrize("threads", [1, 3])
def test_many_of_them_in_threads_are_the_same_bytes(threads: int) -> None:
    codes = made(700, 300)
    payload = pack(weight(codes), threads)
    assert torch.equal(payload, pack(weight(codes)))
    assert_same(unpack(payload, threads=threads), codes.restore())


def test_steps_that_differ_tell_what_to_expect() -> None:
    codes = made(2000, 300)
    assert pack(weight(codes)).numel() < 0.9 * codec.order0_bits(codes.values) / 8


def test_each_value_is_the_product_of_both_scales_in_float32_rounded_once() -> None:
    rows, columns = (grid.scales(torch.tensor(each, dtype=torch.int16)) for each in ([[3], [-70]], [[5, 0, -9]]))
    codes = Codes(torch.tensor([[3, -5, 0], [1, 2, -128]], dtype=torch.int8), rows, torch.float16, columns)
    expected = ((codes.values.float() * rows) * columns).half()
    assert torch.equal(unpack(pack(weight(codes))), expected)
    assert (codes.extremes().max(), codes.extremes().min()) == (expected.max(), expected.min())


def test_scales_off_the_grid_are_the_programmers_fault() -> None:
    codes = made(4, 6)
    with pytest.raises(ValueError, match="must be powers of two"):
        pack(weight(Codes(codes.values, codes.scale * 1.001, codes.dtype, codes.columns)))


def test_no_byte_of_it_can_change_unseen() -> None:
    codes = made(30, 20)
    payload = pack(weight(codes))
    unseen = 0
    for place in range(payload.numel()):
        damaged = payload.clone()
        damaged[place] ^= 1 << place % 8
        try:
            unseen += not torch.equal(unpack(damaged, codes.values.shape), codes.restore())
        except PayloadError:
            continue
    assert unseen == 0


def test_it_may_not_be_cut_short_or_go_on() -> None:
    payload = pack(weight(made(30, 20)))
    for length in range(payload.numel()):
        with pytest.raises(PayloadError):
            unpack(payload[:length], (30, 20))
    with pytest.raises(PayloadError, match="longer than its classes"):
        unpack(torch.cat([payload, payload[:3]]))
    with pytest.raises(PayloadError, match=r"shape \(30, 20\), not \(20, 30\)"):
        unpack(payload, (20, 30))


def crafted(*parts: torch.Tensor) -> torch.Tensor:
    """A payload of blocks that need not belong together."""
    head = struct.pack("<4sBBQ", b"OPTR", 1, 0, 0)
    head += zlib.crc32(head).to_bytes(4, "little")
    blocks = b"".join(classes._block(part) for part in parts)
    return torch.frombuffer(bytearray(head + blocks), dtype=torch.uint8)


def test_scales_of_a_size_that_is_only_claimed_are_refused_before_anything_of_it_is_allocated() -> None:
    many = codec.encode(torch.zeros(1 << 20, 1, dtype=torch.int16))
    wide = codec.encode(torch.zeros(1, 1 << 20, dtype=torch.int16))
    with pytest.raises(PayloadError, match="holds shape"):
        unpack(crafted(many, wide, codec.encode(torch.zeros(9, dtype=torch.int8))))


def test_scales_that_are_none_are_refused() -> None:
    rows, columns = torch.zeros(3, 1, dtype=torch.int16), torch.zeros(1, 4, dtype=torch.int16)
    codes = torch.zeros(12, dtype=torch.int8)
    for parts in (
        (rows.float(), columns, codes),
        (rows[:, 0], columns, codes),
        (rows, rows, codes),
        (rows[None], columns, codes),
        (rows, columns, codes.float()),
        (rows, columns, codes[:11]),
    ):
        with pytest.raises(PayloadError):
            unpack(crafted(*(codec.encode(part) for part in parts)))
