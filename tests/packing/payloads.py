"""Tensors that take every way through the codec, and payloads made by hand."""

import zlib

import numpy as np
import torch


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().as_strided((tensor.numel(),), (1,)).view(torch.uint8).numpy().tobytes()


def assert_same(restored: torch.Tensor, original: torch.Tensor) -> None:
    assert (restored.dtype, restored.shape) == (original.dtype, original.shape)
    assert raw(restored) == raw(original)


def of_every_node() -> dict[str, tuple[torch.Tensor, int, list[int]]]:
    """Tensors that together take every kind of node, and the bytes at a place of their first block that prove it."""
    random = np.random.default_rng(1)
    count = 20_000
    normal = random.standard_normal(count)
    sparse = random.random(count) < 0.3
    outliers = np.where(sparse, random.integers(-600, 600, count), normal * 4)

    def rounded(values: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
        return torch.from_numpy(values).round().to(dtype)

    return {
        "stream raw": (torch.from_numpy(random.integers(0, 256, 100).astype(np.uint8)), 0, [0]),
        "stream huffman": (rounded(normal * 30, torch.int8), 0, [2]),
        "stream split 1": (torch.from_numpy(random.random(count) < 0.02), 0, [3, 1, 0]),
        "stream split 2": (rounded(normal * 0.5, torch.int8), 0, [3, 2, 255]),
        "stream split 4": (rounded(normal, torch.int8), 0, [3, 4]),
        "raw": (torch.from_numpy(random.integers(-(2**15), 2**15, 9).astype(np.int16)), 0, [0]),
        # The sign follows from the exponent, so that both belong into one byte.
        "planes": (torch.from_numpy(np.where(abs(normal) > 1, -2, 2) * abs(normal)).float(), 0, [1]),
        "planes of integers": (torch.from_numpy(normal.astype(np.int64) << 40), 0, [1]),
        "rotated": (torch.from_numpy(normal).double(), 0, [2]),
        "nonzero": (torch.from_numpy(normal * sparse).to(torch.bfloat16), 0, [3]),
        "offset": (rounded(normal * 10 + 1000, torch.int16), 0, [4]),
        "symbols": (rounded(normal * 30, torch.int32) * 7, 5, [2, 5]),
        "window": (rounded(outliers, torch.int32), 5, [2, 6]),
        "shift": (rounded(normal * 400, torch.int32), 5, [2, 7]),
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
    return len(node).to_bytes(4, "little") + zlib.crc32(restored).to_bytes(4, "little") + node
