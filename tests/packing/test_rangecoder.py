"""Range codes: of any stream, as the layout says, and refused when they are anything else."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from payloads import assert_same, block, crafted, raw

from optimizer.packing import bisection
from optimizer.packing.codec import PayloadError, decode, encode, header
from optimizer.packing.reader import Reader, varint

BITS, BYTES = 5, 6


def sample(count: int) -> torch.Tensor:
    random = np.random.default_rng(9)
    codes = random.standard_normal(count) * 5 * (random.random(count) < 0.5)
    return torch.from_numpy(codes.round().astype(np.int8).view(np.uint8))


def range_code(tensor: torch.Tensor) -> tuple[int, bytes]:
    """The tag and the range code that a tensor's payload is made of."""
    payload = encode(tensor)
    reader = Reader(payload[header(payload).size + 4 :].numpy().data)
    tag = reader.number(1)
    code = bytes(reader.take(reader.varint()))
    assert not reader.left
    return tag, code


def with_code(tag: int, code: bytes, tensor: torch.Tensor) -> torch.Tensor:
    return crafted([tensor.numel()], 1, block(bytes([tag]) + varint(len(code)) + code, raw(tensor)))


def decoded_by_the_layout(code: bytes, width: int, count: int) -> list[int]:
    """What the codec's docstring says, in integers and without the library."""
    point = int.from_bytes(code[:8].ljust(8, b"\0"), "big")
    low, size, place = 0, 2**64 - 1, 8

    def symbol(interval: Callable[[int], tuple[int, int, int]]) -> int:
        nonlocal point, low, size, place
        scale = size >> 24
        found, left, probability = interval((point - low) // scale)
        low, size = low + scale * left, scale * probability
        if size < 2**32:
            word = int.from_bytes(code[place : place + 4].ljust(4, b"\0"), "big")
            low, size, point, place = low << 32, size << 32, point << 32 | word, place + 4
        return found

    def choose(possible: int) -> int:
        each = 2**24 // possible

        def interval(quantile: int) -> tuple[int, int, int]:
            choice = min(quantile // each, possible - 1)
            return choice, choice * each, each if choice < possible - 1 else 2**24 - choice * each

        return symbol(interval)

    alphabet = 2**width
    shares = bisection.shares(choose, alphabet, count * 8 // width)
    table = [1 + share * (2**24 - alphabet) // 2**40 for share in shares]
    table[shares.index(max(shares))] += 2**24 - sum(table)
    starts = np.concatenate(([0], np.cumsum(table)))

    def of_table(quantile: int) -> tuple[int, int, int]:
        found = int(np.searchsorted(starts, quantile, "right")) - 1
        return found, int(starts[found]), table[found]

    return [symbol(of_table) for _ in range(count * 8 // width)]


@pytest.mark.parametrize("count", [20, 300, 3000])
def test_codes_follow_the_layout(count: int) -> None:
    codes = sample(count)
    tag, code = range_code(codes)
    assert tag == BYTES
    assert decoded_by_the_layout(code, 8, count) == codes.tolist()
    mask = np.random.default_rng(1).random(8 * count) < 0.1
    tag, code = range_code(torch.from_numpy(np.packbits(mask)))
    assert tag == BITS
    assert decoded_by_the_layout(code, 1, count) == mask.tolist()


def test_bytes_of_version_1() -> None:
    tag, code = range_code(torch.tensor([0, 1, 0, 0, 255, 0, 1, 0, 0, 2, 0, 0] * 4, dtype=torch.uint8))
    assert (tag, code.hex()) == (BYTES, "8059248d60931ad230fcb93adc6185cd50")


def test_any_short_stream_is_restored() -> None:
    """Thousands of them, since a carry that is pending at the end is rare."""
    random = np.random.default_rng(2)
    taken = 0
    for _ in range(2000):
        values = random.standard_normal(int(random.integers(8, 60))) * random.choice([0.2, 1, 3])
        tensor = torch.from_numpy(values.round().astype(np.int8))
        payload = encode(tensor)
        taken += header(payload).scheme == "blocks" and int(payload[header(payload).size + 4]) in {BITS, BYTES}
        assert_same(decode(payload), tensor)
    assert taken > 500


@pytest.mark.parametrize("tag", [BITS, BYTES])
def test_noise_is_no_code(tag: int) -> None:
    random = np.random.default_rng(3)
    for length in (0, 1, 2, 5, 30, 200):
        for count in (1, 30, 1000, 1 << 16):
            with pytest.raises(PayloadError):
                decode(with_code(tag, random.bytes(length), torch.ones(count, dtype=torch.uint8)))


@pytest.mark.parametrize("count", [40, 600, 5000])
def test_codes_of_another_length_or_end_are_refused(count: int) -> None:
    tensor = sample(count)
    tag, code = range_code(tensor)
    assert_same(decode(with_code(tag, code, tensor)), tensor)
    others = [code + b"\0", code + b"\1", code[:-1], code[:-1] + bytes([code[-1] ^ 1]), code[:-1] + b"\0", b""]
    for other in others:
        with pytest.raises(PayloadError):
            decode(with_code(tag, other, tensor))


def test_damage_anywhere_in_a_code_is_seen() -> None:
    tensor = sample(2000)
    tag, code = range_code(tensor)
    for place in range(len(code)):
        damaged = bytearray(code)
        damaged[place] ^= 1 << place % 8
        with pytest.raises(PayloadError):
            decode(with_code(tag, bytes(damaged), tensor))


@pytest.mark.parametrize(
    "counts", [[1, 0], [1, 1], [5, 0, 0, 1], [0] * 255 + [9], [10**5, 1], [3] * 256, [0, 7] * 128], ids=len
)
def test_shares_follow_the_counts(counts: list[int]) -> None:
    bits, choices = bisection.plan(np.array(counts))
    made = iter(choices)

    def choose(possible: int) -> int:
        expected, chosen = next(made)
        assert expected == possible
        return chosen

    shares = bisection.shares(choose, len(counts), sum(counts))
    assert next(made, None) is None
    assert sum(shares) <= bisection.UNIT
    used = [(share / bisection.UNIT, count) for share, count in zip(shares, counts, strict=True) if count]
    told = sum(np.log2(possible) for possible, _ in choices)
    assert told - sum(count * np.log2(share) for share, count in used) == pytest.approx(bits, abs=0.01)
