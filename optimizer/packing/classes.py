"""Codes with a scale for each row and each column, the codes of steps alike together: each class has its own histogram.

The coarser the step the smaller the code that it makes of the same weight, so that the scales alone tell how large a
code is to be expected, and nothing has to be stored for it. Numbers are little-endian, a block is its length as a
varint and as many bytes:

| bytes | content                                                                                      |
| ----- | -------------------------------------------------------------------------------------------- |
| ...   | block: the codec's payload of the exponents of the rows' scales, int16 [..., rows, 1]        |
| ...   | block: the same of the columns' scales, int16 [..., 1, columns]                              |
| ...   | a block for each class: the codec's payload of its codes, row by row, 1-D                    |

The step of a code is two to the power of the 64th part of its row's and its column's exponents together (see `grid`).
`bounds` says how sums of exponents make classes.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from optimizer.packing import codec
from optimizer.packing.grid import PER_OCTAVE, Array
from optimizer.packing.reader import PayloadError, Reader, varint

WIDTH = PER_OCTAVE // 2
"""Steps that differ by less make codes of the same class."""
_FEWEST = 1 << 14
"""Codes of a class: of fewer, a histogram of their own costs more than it saves."""


def pack(values: Tensor, rows: Tensor, columns: Tensor, threads: int) -> bytes:
    """The blocks of integer codes `[..., rows, columns]` whose scales have these exponents."""
    sums, width = _sums(rows, columns)
    parted = values.contiguous().numpy().reshape(-1, width)
    places = _places(sums, bounds(*_counted(rows, columns)))
    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(lambda place: codec.encode(torch.from_numpy(parted[place].reshape(-1))), places))
    return b"".join(_block(part) for part in (codec.encode(rows), codec.encode(columns), *parts))


def shape(data: memoryview) -> tuple[int, ...]:
    """The shape of the codes, from the first bytes; PayloadError where they are not what `pack` writes."""
    return _shape(*map(_header, _scale_blocks(Reader(data))))


def unpack(data: memoryview, expect_shape: Sequence[int] | None, threads: int) -> tuple[Tensor, Tensor, Tensor]:
    """The codes and the exponents of their rows' and columns' scales; PayloadError for what `pack` never writes.

    Nothing is allocated for a size that is only claimed, as in the codec.
    """
    reader = Reader(data)
    blocks = _scale_blocks(reader)
    found = _shape(*map(_header, blocks))
    if expect_shape is not None and tuple(expect_shape) != found:
        raise PayloadError(f"payload holds shape {found}, not {tuple(expect_shape)}")
    rows, columns = (codec.decode(block, expect_dtype=torch.int16) for block in blocks)
    sums, counts = _counted(rows, columns)
    edges = bounds(sums, counts)
    sizes = [int(counts[(sums >= low) & (sums < high)].sum()) for low, high in _spans(edges)]
    parts = [_tensor(reader) for _ in sizes]
    if reader.left:
        raise PayloadError("payload is longer than its classes")
    with ThreadPoolExecutor(threads) as pool:
        codes = list(pool.map(lambda part, size: codec.decode(part, expect_shape=(size,)), parts, sizes))
    kinds = {part.dtype for part in codes}
    if len(kinds) > 1 or any(kind.is_floating_point for kind in kinds):
        raise PayloadError("payload's classes are not integers of one type")
    values = torch.empty(found, dtype=kinds.pop() if kinds else torch.int8)
    of_each, width = _sums(rows, columns)
    parted = values.numpy().reshape(-1, width)
    for place, part in zip(_places(of_each, edges), codes, strict=True):
        parted[place] = part.numpy().reshape(-1, width)
    return values, rows, columns


def bounds(sums: Array, counts: Array) -> list[int]:
    """The lowest sum of exponents of each class, from the distinct sums in their order and how many codes have each.

    A class ends where it spans half an octave and holds codes enough, and so do those that are left.
    """
    edges: list[int] = []
    held = 0
    left = int(counts.sum())
    for value, count in zip(sums.tolist(), counts.tolist(), strict=True):
        if not edges or (held >= _FEWEST and value >= edges[-1] + WIDTH and left >= _FEWEST):
            edges.append(value)
            held = 0
        held += count
        left -= count
    return edges


def _spans(edges: Sequence[int]) -> Iterator[tuple[int, float]]:
    return zip(edges, (*edges[1:], np.inf) if edges else (), strict=True)


def _places(sums: Array, edges: Sequence[int]) -> Iterator[Array]:
    """Where the codes of each class stand, in the order of the matrix."""
    for low, high in _spans(edges):
        yield np.flatnonzero((sums >= low) & (sums < high))


def _sums(rows: Tensor, columns: Tensor) -> tuple[Array, int]:
    """The sum of exponents of each code, or of each row of so many codes where the columns are all alike."""
    if columns.numel() and bool((columns == columns.flatten()[0]).all()):
        return (rows.to(torch.int32) + columns.flatten()[0]).numpy().reshape(-1), columns.shape[-1]
    return (rows.to(torch.int32) + columns).numpy().reshape(-1), 1


def _counted(rows: Tensor, columns: Tensor) -> tuple[Array, Array]:
    """The distinct sums of exponents and how many codes have each, of matrices one after the other."""
    found: dict[int, int] = {}
    of_rows, of_columns = (
        side.flatten(-2).flatten(0, -2) if side.ndim > 2 else side.reshape(1, -1) for side in (rows, columns)
    )
    for row, column in zip(of_rows.numpy(), of_columns.numpy(), strict=True):
        one, two = (np.unique(side, return_counts=True) for side in (row, column))
        sums = np.add.outer(one[0].astype(np.int64), two[0]).reshape(-1)
        for value, count in zip(sums.tolist(), np.multiply.outer(one[1], two[1]).reshape(-1).tolist(), strict=True):
            found[value] = found.get(value, 0) + count
    ordered = sorted(found)
    return np.array(ordered, np.int64), np.array([found[value] for value in ordered], np.int64)


def _scale_blocks(reader: Reader) -> list[Tensor]:
    return [_tensor(reader) for _ in range(2)]


def _header(block: Tensor) -> codec.Header:
    head = codec.header(block)
    if head.dtype != torch.int16 or len(head.shape) < 2:
        raise PayloadError(f"payload's scales are {head.dtype} of shape {head.shape}, not int16 of rows and columns")
    return head


def _shape(rows: codec.Header, columns: codec.Header) -> tuple[int, ...]:
    stack = rows.shape[:-2]
    if stack != columns.shape[:-2] or rows.shape[-1] != 1 or columns.shape[-2] != 1:
        raise PayloadError(f"payload's scales of shapes {rows.shape} and {columns.shape} are not of rows and columns")
    return (*stack, rows.shape[-2], columns.shape[-1])


def _tensor(reader: Reader) -> Tensor:
    return torch.frombuffer(bytearray(reader.take(reader.varint())) or bytearray(1), dtype=torch.uint8)


def _block(payload: Tensor) -> bytes:
    return varint(payload.numel()) + payload.numpy().tobytes()
