"""Damaged and hostile payloads are refused, before anything is allocated for them."""

import numpy as np
import pytest
import torch
import zstandard
from payloads import assert_same, block, crafted, of_every_node

from optimizer.packing.codec import PayloadError, decode, encode, header
from optimizer.packing.reader import varint


def refuses_or_restores(payload: torch.Tensor, original: torch.Tensor) -> bool:
    """Tell whether a damaged payload is refused; fail if it restores anything but the original."""
    try:
        restored = decode(payload)
    except PayloadError:
        return True
    assert_same(restored, original)
    return False


@pytest.mark.parametrize("node", ["constant", *of_every_node()])
def test_no_damaged_byte_goes_unseen(node: str) -> None:
    tensor = torch.ones(50) if node == "constant" else of_every_node()[node][0][:600]
    payload = encode(tensor)
    refused = 0
    for place in range(payload.numel()):
        for bit in (0xFF, 1) if place % 8 == 0 else (1,):
            damaged = payload.clone()
            damaged[place] ^= bit
            refused += refuses_or_restores(damaged, tensor)
    assert refused > 0.99 * payload.numel()


@pytest.mark.parametrize("node", ["nonzero", "window", "stream split 2"])
def test_damage_anywhere_in_a_large_payload_is_seen(node: str) -> None:
    tensor = of_every_node()[node][0]
    payload = encode(tensor)
    for place in np.random.default_rng(5).integers(0, payload.numel(), 100).tolist():
        damaged = payload.clone()
        damaged[place] ^= 0x10
        refuses_or_restores(damaged, tensor)


@pytest.mark.parametrize("node", ["constant", "stream raw", "nonzero"])
def test_cut_or_longer_payloads_are_refused(node: str) -> None:
    payload = encode(torch.ones(50) if node == "constant" else of_every_node()[node][0][:300])
    for length in range(payload.numel()):
        with pytest.raises(PayloadError):
            decode(payload[:length])
    for more in (0, 7):
        with pytest.raises(PayloadError):
            decode(torch.cat([payload, torch.tensor([more], dtype=torch.uint8)]))


def test_what_is_no_payload_is_refused() -> None:
    for tensor in (torch.zeros(40, dtype=torch.uint8), torch.zeros(40), torch.zeros(4, 10, dtype=torch.uint8)):
        with pytest.raises(PayloadError):
            header(tensor)
        with pytest.raises(PayloadError):
            decode(tensor)


def test_crafted_payloads_follow_the_layout() -> None:
    assert decode(crafted([9], 0, b"")).tolist() == [0] * 9
    node = b"\x03\x01\x04" + b"\x00\x60" + b"\x00\x07\x08"  # 4 but where the mask 0110 says 7 and 8
    assert decode(crafted([4], 1, block(node, bytes([4, 7, 8, 4])))).tolist() == [4, 7, 8, 4]


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        (crafted([1 << 40], 0, b""), "claims 1099511627776 bytes"),
        (crafted([1 << 25], 0, b""), "claims 33554432 bytes"),
        (crafted([1 << 40, 1 << 40], 0, b""), "more elements than can be addressed"),
        (crafted([1 << 62, 0, 1 << 62], 1, b""), "more elements than can be addressed"),
        (crafted([1 << 62, 4, 0], 1, b""), "more elements than can be addressed"),
        (crafted([1 << 24], 1, bytes(40)), "cut short"),
        (crafted([4], 1, block(b"\x00abcd", b"abce")), "does not restore"),
        (crafted([4], 1, block(b"\x00abcd\x00", b"abcd")), "does not restore"),
        (crafted([0], 1, block(b"\x00abcd", b"abcd")), "longer than its blocks"),
        (crafted([4], 1, block(b"\x09abcd", b"abcd")), "unknown stream 9"),
        (crafted([4], 1, block(b"\x03\x03\x00", b"abcd")), "digits of 3 bits"),
        (crafted([4], 1, block(b"\x03\x01\x00\x00\x08", b"abcd")), "mask is longer"),
        (crafted([4], 1, block(b"\x04\x00\x00\x00\x00\x00\x00\x08", b"abcd")), "mask is longer"),
        (crafted([4], 1, block(b"\x06\x04abcd", b"abcd")), "range coded in 4 bytes"),
        (crafted([4], 1, block(b"\x05\x05abcd", b"abcd")), "cut short"),
        (crafted([1 << 18, 2], 1, block(b"\x06\x01a", b"abcd")), "stream of 524288 bytes is range coded"),
        (crafted([4], 1, block(b"\x06" + b"\xff" * 9, b"abcd")), "too large"),
        (crafted([4], 1, block(b"\x03\x01\x00" * 40, b"abcd")), "nested too deep"),
        (crafted([2], 1, block(b"\x09", b"abcd"), dtype=7), "unknown block 9"),
        (crafted([2], 1, block(b"\x04\x13\x00", b"abcd"), dtype=7), "unknown width"),
        (crafted([2], 1, block(b"\x04\x31\x00\x00\x00", b"abcd"), dtype=7), "unknown width"),
        (crafted([2], 1, block(b"\x05\x07\x00\x01\x00\x01\x00", b"abcd"), dtype=7), "no symbol"),
        (crafted([2], 1, block(b"\x07\x09", b"abcd"), dtype=7), "unknown bit"),
        (crafted([4], 2, b""), "scheme 2"),
        (crafted([4], 0, b"", dtype=99), "unknown dtype 99"),
        (crafted([4], 0, b"", version=2), "format version 2, this program reads 1"),
        (crafted([4], 0, b"", padding=1), "padding"),
        (crafted([4], 0, b"\x01", padding=1), "padding"),
        (crafted([4], 0, b"", padding=1 << 40), "padding"),
        (crafted([4], 0, b"\x00"), "followed by other bytes"),
        (crafted([1 << 63], 0, b""), "too large"),
    ],
)
def test_hostile_payloads_are_refused(payload: torch.Tensor, error: str) -> None:
    with pytest.raises(PayloadError, match=error):
        decode(payload)


def test_a_stream_restores_no_more_than_its_place_asks_for() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(1 << 24))
    lie = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1 << 24))
    for frame in (bomb, lie, b"no frame"):
        node = b"\x02" + varint(len(frame)) + frame
        with pytest.raises(PayloadError, match="a stream"):
            decode(crafted([4], 1, block(node, bytes(4))))
