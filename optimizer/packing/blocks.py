"""One block of a tensor's elements to a node and back; the layout of the nodes is in `codec`.

Elements are unsigned bit patterns of 1, 2, 4 or 8 bytes. Each node turns them into fewer or narrower ones, down to
streams of bytes.
"""

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from optimizer.packing.entropy import byte_planes, plane_bits, rotated, shannon_bits
from optimizer.packing.reader import PayloadError, Reader, check_depth
from optimizer.packing.streams import TOLERANCE, join, read_mask, read_stream, split_off, write_stream

Array = NDArray[Any]

RAW, PLANES, ROTATED, NONZERO, OFFSET, SYMBOLS, WINDOW, SHIFT = range(8)
MAX_SPAN = 1 << 16
"""Integers are coded by their histogram when their largest is less than this above their smallest."""
MIN_ZEROS = 1 / 64
"""Share of zeros from which on a mask of them is worth its time."""
SAMPLE = 1 << 14
"""Elements that decide how floats are split into planes."""
ESCAPE = 255
"""The byte that stands for a code outside the window."""
MAX_WINDOWS = 8


def write_block(values: Array, signed: bool | None, ranged: int) -> bytes:
    """Encode a non-empty 1-D array of unsigned patterns; `ranged` as for `write_stream`.

    `signed` is None for floats, else the order of integers.
    """
    if values.dtype.itemsize == 1:
        parts = write_stream(values, ranged)
    elif signed is None:
        parts = _write_floats(values, ranged)
    else:
        parts = _write_integers(values, signed, ranged)
    raw_bytes = values.nbytes + (values.dtype.itemsize > 1)
    if sum(map(len, parts)) > raw_bytes and values.dtype.itemsize > 1:
        parts = [bytes([RAW]), values.tobytes()]
    return b"".join(parts)


def read_block(reader: Reader, count: int, itemsize: int, depth: int = 0) -> Array:
    """Decode the node of `count` patterns of `itemsize` bytes; `PayloadError` when it is not one."""
    check_depth(depth)
    if itemsize == 1 or not count:
        return read_stream(reader, count, depth).astype(f"<u{itemsize}", copy=False)
    tag = reader.number(1)
    if tag == RAW:
        return reader.array(count, itemsize)
    if tag in (PLANES, ROTATED):
        values = _join_planes([read_stream(reader, count, depth + 1) for _ in range(itemsize)], itemsize)
        return _unrotated(values) if tag == ROTATED else values
    if tag == NONZERO:
        where = read_mask(reader, count, depth)
        return join(where, read_block(reader, where.size, itemsize, depth + 1), count, 0)
    if tag == OFFSET:
        low_bytes, width = divmod(reader.number(1), 16)
        if width not in (1, 2) or low_bytes > itemsize:
            raise PayloadError("codes of an unknown width")
        low = int.from_bytes(reader.take(low_bytes), "little", signed=True) % (1 << 8 * itemsize)
        values = read_block(reader, count, width, depth + 1).astype(f"<u{itemsize}")
        values += np.array(low, f"<u{itemsize}")
        return values
    if itemsize != 2 or tag not in (SYMBOLS, WINDOW, SHIFT):
        raise PayloadError(f"unknown block {tag}")
    return _read_codes(reader, tag, count, depth)


def _write_floats(values: Array, ranged: int) -> list[bytes]:
    if _has_zeros(values):
        mask, rest = split_off(values, 0)
        return [bytes([NONZERO]), *write_stream(mask, ranged, 1), *(_write_floats(rest, ranged) if rest.size else ())]
    sample = values[:: max(1, values.size // SAMPLE)]
    turn = plane_bits(rotated(sample)) <= plane_bits(sample)
    planes = byte_planes(rotated(values) if turn else values)
    return [
        bytes([ROTATED if turn else PLANES]),
        *(part for plane in planes for part in write_stream(plane, ranged, 2)),
    ]


def _write_integers(values: Array, signed: bool, ranged: int) -> list[bytes]:
    ordered = values.view(values.dtype.str.replace("u", "i")) if signed else values
    low, high = ordered.min(), ordered.max()
    span = int(high) - int(low) + 1
    if span > 256 and _has_zeros(values):
        # A spike at zero would have to be told apart in the upper and in the lower bits of the codes.
        mask, rest = split_off(values, 0)
        return [bytes([NONZERO]), *write_stream(mask, ranged, 1), *_write_integers(rest, signed, ranged)]
    if span > MAX_SPAN:
        planes = byte_planes(values)
        return [bytes([PLANES]), *(part for plane in planes for part in write_stream(plane, ranged, 2))]
    width = 1 if span <= 256 else 2
    codes = (values - low.view(values.dtype)).astype(f"<u{width}")
    start = int(low.view(low.dtype.str.replace("u", "i")))
    start_bytes = min(low.itemsize, start.bit_length() // 8 + 1)
    head = bytes([OFFSET, 16 * start_bytes + width]) + start.to_bytes(start_bytes, "little", signed=True)
    return [head, *_write_codes(codes, ranged)]


def _has_zeros(values: Array) -> bool:
    return bool(values.size - np.count_nonzero(values) >= MIN_ZEROS * values.size)


def _write_codes(codes: Array, ranged: int, depth: int = 2) -> list[bytes]:
    """Encode 1- or 2-byte codes by their histogram."""
    if codes.dtype.itemsize == 1 or not codes.size:
        return write_stream(codes, ranged, depth)
    counts = np.bincount(codes)
    symbols = np.flatnonzero(counts)
    shift = max(0, (counts.size - 1).bit_length() - 8)
    high, low = _fold(counts, shift)
    exact, bits = shannon_bits(counts), shannon_bits(high) + shannon_bits(low)
    few = symbols.size <= max(256, counts.size // 2)
    if few and bits > exact + shannon_bits(np.array([symbols.size, counts.size - symbols.size])):
        return _write_symbols(codes, symbols, counts.size, ranged, depth)
    if bits <= exact * (1 + TOLERANCE) or few or depth > MAX_WINDOWS:
        streams = (codes >> shift).astype(np.uint8), (codes & ((1 << shift) - 1)).astype(np.uint8)
        return [
            bytes([SHIFT, shift]),
            *(part for stream in streams for part in write_stream(stream, ranged, depth + 1)),
        ]
    sums = np.cumsum(np.concatenate(([0], counts)))
    start = int((sums[ESCAPE:] - sums[:-ESCAPE]).argmax())
    digits = np.minimum(codes - np.uint16(start), ESCAPE).astype(np.uint8)
    escaped = codes.take(np.flatnonzero(digits == ESCAPE))
    head = bytes([WINDOW]) + start.to_bytes(2, "little")
    return [head, *write_stream(digits, ranged, depth + 1), *_write_codes(escaped, ranged, depth + 1)]


def _write_symbols(codes: Array, symbols: Array, span: int, ranged: int, depth: int) -> list[bytes]:
    """Replace codes by their rank among the symbols that occur, which a bit map of the span tells."""
    present = np.zeros(span, np.bool_)
    present[symbols] = True
    ranks = np.cumsum(present, dtype=np.uint16) - 1
    narrow = ranks.astype("<u1" if symbols.size <= 256 else "<u2")
    head = bytes([SYMBOLS]) + (span - 1).to_bytes(2, "little")
    return [
        head,
        *write_stream(np.packbits(present), ranged, depth + 1),
        *_write_codes(narrow.take(codes), ranged, depth + 1),
    ]


def _fold(counts: Array, shift: int) -> tuple[Array, Array]:
    """Return the histograms of the high and of the low part of codes split at bit `shift`."""
    padded = np.pad(counts, (0, -counts.size % (1 << shift))).reshape(-1, 1 << shift)
    return padded.sum(1), padded.sum(0)


def _read_codes(reader: Reader, tag: int, count: int, depth: int) -> Array:
    if tag == SYMBOLS:
        symbols = read_mask(reader, reader.number(2) + 1, depth).astype("<u2")
        ranks = read_block(reader, count, 1 if symbols.size <= 256 else 2, depth + 1)
        if int(ranks.max()) >= symbols.size:
            raise PayloadError("a code that no symbol stands for")
        return symbols.take(ranks)
    if tag == WINDOW:
        start = np.array(reader.number(2), "<u2")
        digits = read_stream(reader, count, depth + 1)
        where = np.flatnonzero(digits == ESCAPE)
        codes = digits + start
        codes[where] = read_block(reader, where.size, 2, depth + 1)
        return cast(Array, codes)
    shift = reader.number(1)
    if shift > 8:
        raise PayloadError("codes are split at an unknown bit")
    high, low = (read_stream(reader, count, depth + 1) for _ in range(2))
    return (high.astype("<u2") << shift) | low


def _join_planes(planes: list[Array], itemsize: int) -> Array:
    values = planes[-1].astype(f"<u{itemsize}")
    for plane in planes[-2::-1]:
        values <<= 8
        values |= plane
    return values


def _unrotated(values: Array) -> Array:
    bits = values.dtype.itemsize * 8
    return cast(Array, (values >> 1) | (values << (bits - 1)))
