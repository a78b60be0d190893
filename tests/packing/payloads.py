"""Tensors that take every way through the codec, and payloads made by hand."""

import zlib
from collections.abc import Callable

import numpy as np
import torch

from optimizer.model.weight import Codes, Weight
from optimizer.packing.payload import is_payload, pack, restored_shape, stored_codes, unpack


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().as_strided((tensor.numel(),), (1,)).view(torch.uint8).numpy().tobytes()


def assert_same(restored: torch.Tensor, original: torch.Tensor) -> None:
    assert (restored.dtype, restored.shape) == (original.dtype, original.shape)
    assert raw(restored) == raw(original)


def assert_comes_back(codes: Codes) -> None:
    """What is packed of codes is a payload of another shape that says and gives back what they are."""
    payload = pack(Weight("layer.weight", codes, "linear", "layer"))
    assert is_payload(payload)
    assert payload.shape != codes.values.shape
    assert restored_shape(payload) == tuple(codes.values.shape)
    assert_same(unpack(payload, codes.values.shape), codes.restore())
    assert_same(stored_codes(payload), codes.values)


DRAWS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "normal": lambda random, count: random.standard_normal(count) * 32,
    "narrow": lambda random, count: random.standard_normal(count) * 2,
    "laplace": lambda random, count: random.laplace(size=count) * 20,
    "uniform": lambda random, count: random.integers(-100, 101, count),
    "two values": lambda random, count: random.choice([-50, 50], count),
}


def sparse(draw: str, dtype: torch.dtype, raw_bytes: int, zeros: float, seed: int = 0) -> torch.Tensor:
    """Pruned weights of a distribution: codes of -127 to 127 in an integer dtype, their 1600th part in a float's."""
    random = np.random.default_rng(seed)
    count = raw_bytes // dtype.itemsize
    values = torch.from_numpy(DRAWS[draw](random, count).astype(np.float32))
    tensor = (values / 1600 if dtype.is_floating_point else values.round().clamp(-127, 127)).to(dtype)
    tensor[torch.from_numpy(random.random(count) < zeros)] = 0
    return tensor.reshape(-1, 64)


def of_every_node() -> dict[str, tuple[torch.Tensor, int, list[int]]]:
    """Tensors that together take every kind of node, and the bytes at a place of their first block that prove it."""
    random = np.random.default_rng(1)
    # More than a block may have to be made as small as can be.
    count = 300_000
    normal = random.standard_normal(count)
    sparse = random.random(count) < 0.3
    outliers = np.where(sparse, random.integers(-600, 600, count), normal * 4) + 5000

    def rounded(values: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
        return torch.from_numpy(values).round().to(dtype)

    return {
        "stream raw": (torch.from_numpy(random.integers(0, 256, 100).astype(np.uint8)), 0, [0]),
        "stream huffman": (rounded(normal * 30, torch.int8), 0, [2]),
        "stream huffman of a small tensor": (rounded(normal[: 1 << 16] * 30, torch.int8), 0, [2]),
        "stream split 1": (torch.from_numpy(random.random(count) < 0.02), 0, [3, 1, 0]),
        "stream split 2": (rounded(normal * 0.5, torch.int8), 0, [3, 2, 255]),
        "stream split 4": (rounded(normal, torch.int8), 0, [3, 4]),
        "stream halved": (torch.from_numpy(random.integers(0, 201, count).astype(np.uint8)), 0, [4, 2]),
        "stream range of bits": (torch.from_numpy(np.packbits(sparse[:20_000])), 0, [5]),
        "stream range of bytes": (rounded(normal[:5_000] * 30, torch.int8), 0, [6]),
        "raw": (torch.from_numpy(random.integers(-(2**15), 2**15, 9).astype(np.int16)), 0, [0]),
        # The sign follows from the exponent, so that both belong into one byte.
        "planes": (torch.from_numpy(np.where(abs(normal) > 1, -2, 2) * abs(normal)).float(), 0, [1]),
        "planes of integers": (torch.from_numpy((normal * 9).astype(np.int64) * 2**40 + 1), 0, [1]),
        "rotated": (torch.from_numpy(normal).double(), 0, [2]),
        "nonzero": (torch.from_numpy(normal * sparse).to(torch.bfloat16), 0, [3]),
        "nonzero of integers": (rounded(normal * sparse * 400, torch.int16), 0, [3]),
        "offset": (rounded(normal * 10 + 1000, torch.int16), 0, [4, 0x21]),
        "symbols": (rounded(normal * 30 + 1000, torch.int32) * 7, 4, [5]),
        "window": (rounded(outliers, torch.int32), 4, [6]),
        "shift": (rounded(normal * 400 + 10_000, torch.int32), 4, [7]),
    }


def crafted(
    shape: list[int], scheme: int, rest: bytes, *, version: int = 1, dtype: int = 6, padding: int = 0
) -> torch.Tensor:
    """A payload by the layout in the codec's docstring, its header's sum right; of uint8 by default."""

    def varint(number: int) -> bytes:
        return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + varint(number >> 7)

    head = bytes([version, dtype, scheme, len(shape)]) + b"".join(map(varint, [*shape, padding]))
    head += bytes([0]) if scheme == 0 else b""
    return torch.tensor(list(b"OPTC" + zlib.crc32(head).to_bytes(4, "little") + head + rest), dtype=torch.uint8)


def block(node: bytes, restored: bytes) -> bytes:
    """What follows the header of a payload of a single block."""
    return zlib.crc32(restored).to_bytes(4, "little") + node
