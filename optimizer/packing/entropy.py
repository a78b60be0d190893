"""Order-0 entropy: what the packing costs at best, and what a Huffman code makes of it."""

from collections.abc import Callable
from itertools import product
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[Any]

MATCH_LOSS_BITS = 16
"""What zstd loses on each run of four equal bytes in data without structure.

It takes four bytes as a match even where their Huffman codes are cheaper. Fitted to Gaussian, sparse and uniform bytes.
"""
MAX_ALPHABET = 8192
"""Integers of more distinct values than this are indices or raw words, not codes of a quantizer."""


def unsigned_values(tensor: torch.Tensor) -> Array:
    """Return the elements in row-major order as a 1-D array of unsigned bit patterns: a view if they lie so."""
    # A single element may have stride 0, which a view of another dtype does not take.
    flat = tensor.detach().cpu().contiguous().as_strided((tensor.numel(),), (1,))
    values: Array = flat.view(torch.uint8).numpy().view(f"<u{tensor.element_size()}")
    return values


def histogram(data: Array) -> Array:
    """Count each byte value of a uint8 array."""
    return torch.bincount(torch.from_numpy(data), minlength=256).numpy()


def shannon_bits(counts: Array) -> float:
    """Return the order-0 entropy, in bits, of all the symbols counted."""
    present = counts[counts > 0].astype(np.float64)
    total = present.sum()
    return float(total * np.log2(total) - (present * np.log2(present)).sum()) if total else 0.0


def huffman_bits(counts: Array) -> float:
    """Estimate the bits that zstd takes for the bytes counted (weights need not be whole), without its code table.

    Huffman's method with two queues, sorted leaves and merged nodes: the weights of the merged add up to the length.
    """
    leaves: list[float] = np.sort(counts[counts > 0]).tolist()
    if len(leaves) < 2:
        return 0.0
    total = sum(leaves)
    run_of_four = sum((leaf / total) ** 2 for leaf in leaves) ** 4
    merged: list[float] = []
    leaf = node = 0
    for _ in range(len(leaves) - 1):
        weight = 0.0
        for _ in range(2):
            if leaf < len(leaves) and (node >= len(merged) or leaves[leaf] <= merged[node]):
                weight += leaves[leaf]
                leaf += 1
            else:
                weight += merged[node]
                node += 1
        merged.append(weight)
    return sum(merged) + total * run_of_four * MATCH_LOSS_BITS


def rotated(values: Array) -> Array:
    """Rotate each pattern left by one bit, so that a float's exponent leads and its sign ends it."""
    bits = values.dtype.itemsize * 8
    return cast(Array, (values << 1) | (values >> (bits - 1)))


def byte_planes(values: Array) -> list[Array]:
    """Split unsigned values into one uint8 array per byte, lowest first."""
    return [(values >> (8 * plane)).astype(np.uint8) for plane in range(values.dtype.itemsize)]


def plane_bits(values: Array) -> float:
    """Return the summed order-0 entropy, in bits, of the byte planes."""
    return sum(shannon_bits(histogram(plane)) for plane in byte_planes(values))


def order0_bits(tensor: torch.Tensor) -> float:
    """Return the order-0 entropy of a tensor in bits: the bound that the codec is held to.

    Of integers and 1-byte floats: of the codes, or of their byte planes when they take more than `MAX_ALPHABET` values.
    Of other floats: of their byte planes, plain or rotated by one bit, with or without a mask of the +0.0 elements
    apart, whichever is least.
    """
    values = unsigned_values(tensor)
    if not tensor.is_floating_point() or values.dtype.itemsize == 1:
        counts = np.unique(values, return_counts=True)[1]
        return shannon_bits(counts) if counts.size <= MAX_ALPHABET else plane_bits(values)
    nonzero = values[values != 0]
    mask_bits = shannon_bits(np.array([nonzero.size, values.size - nonzero.size]))
    candidates = ((0.0, values), (mask_bits, nonzero))
    layouts: tuple[Callable[[Array], Array], ...] = (rotated, np.copy)
    return min(float(bits + plane_bits(layout(rest))) for (bits, rest), layout in product(candidates, layouts))
