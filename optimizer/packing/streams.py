"""One stream of bytes to a node and back: Huffman coded by zstd, with skewed streams split until Huffman suits them.

Range coding takes twenty times as long, and is left to the streams of small tensors that this does not serve well.

A Huffman code spends a whole bit on a byte that is nearly certain. A skewed stream is therefore split into digits of a
few bits (which of the commonest bytes this is, or that it is none of them), several to a byte and a stream again, and
the bytes that are none of them. This loses nothing: the entropy of a stream is that of its digits and that of the rest.
A stream of more than a hundred about equally common bytes is one that zstd declines to code; without their lowest bit
there are half as many. The layout of the nodes is in `codec`.
"""

from itertools import chain
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from optimizer.packing import rangecoder
from optimizer.packing.entropy import histogram, huffman_bits, shannon_bits
from optimizer.packing.reader import MAX_DEPTH, PayloadError, Reader, check_depth, varint

Array = NDArray[Any]

RAW, CONSTANT, HUFFMAN, SPLIT, HALVED, RANGE_BITS, RANGE_BYTES = range(7)
RANGE_TAGS = {rangecoder.BITS: RANGE_BITS, rangecoder.BYTES: RANGE_BYTES}
DIGIT_BITS = (1, 2, 4)
TOLERANCE = 0.012
"""Share of the entropy that a Huffman code may lose before the stream is split."""
SPLIT_BITS = 400
"""Fixed cost of splitting: two more nodes, each with a zstd frame and a code table."""
DOMINANT = 0.8
"""Share of one byte from which on its own mask is the split, without weighing others."""
SAMPLED = 1 << 18
STRIDE = 31
"""Streams of more than `SAMPLED` bytes are judged by every 31st: a prime, so that it hardly follows a matrix's rows."""
SPARSE = 0.1
"""Share of ones up to which `flatnonzero` of numpy takes another way, up to three times as slow."""
EVEN = 1 / 100
"""Share of the commonest byte up to which zstd may decline; it does below 1/128, judging parts of the stream."""
DECLINED = 0.02
"""Share of the entropy from which on a loss tells that it has."""
FAST_LOSS = 0.015
"""Share of the entropy that a stream may lose, tables and all, before it is range coded."""
MIN_GAIN = 1 / 256
"""Streams that shrink by less are stored raw, for speed of reading."""

# Huffman coding and as little matching as zstd can do, because on weights matches only cost. A `target_length` above 0
# would turn Huffman coding off with this strategy.
_ZSTD = zstandard.ZstdCompressionParameters(
    strategy=zstandard.STRATEGY_FAST, window_log=17, hash_log=6, chain_log=6, search_log=1, min_match=7, target_length=0
)


def write_stream(data: Array, ranged: int, depth: int = 0) -> list[bytes]:
    """Encode a uint8 array; returns the parts of the node, nothing at all for an empty array.

    Streams of up to `ranged` bytes are range coded where anything else costs too much, and that costs less.
    """
    if not data.size:
        return []
    if (data == data[0]).all():
        return [bytes([CONSTANT, data[0]])]
    counts = histogram(data) if data.size <= SAMPLED else histogram(data[::STRIDE]) * STRIDE
    bound = shannon_bits(counts)
    parts = _write_fast(data, counts, bound, ranged, depth)
    if data.size <= ranged and 8 * _length(parts) > (1 + FAST_LOSS) * bound:
        return min(parts, _write_range(data), key=_length)
    return parts


def read_stream(reader: Reader, count: int, depth: int = 0) -> Array:
    """Decode the node of `count` bytes; `PayloadError` when it is not one."""
    check_depth(depth)
    if not count:
        return np.empty(0, np.uint8)
    tag = reader.number(1)
    if tag == RAW:
        return reader.array(count)
    if tag == CONSTANT:
        return np.full(count, reader.number(1), np.uint8)
    if tag == HUFFMAN:
        return _decompress(reader.take(reader.varint()), count)
    if tag == SPLIT:
        return _read_split(reader, count, depth)
    if tag == HALVED:
        return _read_halves(reader, count, depth)
    for width, of_width in RANGE_TAGS.items():
        if tag == of_width:
            return rangecoder.range_decoded(reader.take(reader.varint()), width, count)
    raise PayloadError(f"unknown stream {tag}")


def split_off(values: Array, common: int) -> tuple[Array, Array]:
    """Return the mask of the values that are not `common`, eight to a byte, and these values."""
    mask = np.packbits(values != common)
    # Indices are several times as fast as a boolean mask, here and in `join`.
    return mask, values.take(_places(mask, values.size))


def read_mask(reader: Reader, count: int, depth: int) -> Array:
    """Read the mask that `split_off` made of `count` values; returns the indices of its ones."""
    return _places(_read_bits(reader, count, depth), count)


def join(where: Array, rest: Array, count: int, common: int) -> Array:
    """Undo `split_off`: `rest` at the indices `where`, `common` elsewhere."""
    values = np.full(count, common, rest.dtype)
    values[where] = rest
    return values


def _write_fast(data: Array, counts: Array, bound: float, ranged: int, depth: int) -> list[bytes]:
    """Encode a stream of that histogram and entropy in bits by a Huffman code, split or halved where that is less."""
    if depth < MAX_DEPTH and huffman_bits(counts) > SPLIT_BITS + (1 + TOLERANCE) * bound:
        bits, start = _best_split(counts, bound)
        streams = [write_stream(stream, ranged, depth + 1) for stream in _split(data, bits, start)]
        return [bytes([SPLIT, bits, start]), *chain.from_iterable(streams)]
    whole = _write_huffman(data)
    even = counts.max() < EVEN * counts.sum()
    if depth < MAX_DEPTH and even and 8 * _length(whole) > SPLIT_BITS + (1 + DECLINED) * bound:
        streams = [write_stream(stream, ranged, depth + 1) for stream in (data >> 1, np.packbits(data & 1))]
        return min(whole, [bytes([HALVED]), *chain.from_iterable(streams)], key=_length)
    return whole


def _read_bits(reader: Reader, count: int, depth: int) -> Array:
    mask = read_stream(reader, -(-count // 8), depth + 1)
    if count % 8 and mask[-1] & (0xFF >> count % 8):
        raise PayloadError("a mask is longer than its place asks for")
    return mask


def _places(mask: Array, count: int) -> Array:
    """Return the indices of the ones among `count` bits."""
    if np.bitwise_count(mask).sum() > SPARSE * count:
        return np.flatnonzero(np.unpackbits(mask, count=count).view(np.bool_))
    # numpy is slow on few ones, therefore only on the bytes that have some.
    used = np.flatnonzero(mask != 0)
    bits = np.flatnonzero(np.unpackbits(mask.take(used)).view(np.bool_))
    return used.take(bits >> 3) * 8 + (bits & 7)


def _best_split(counts: Array, bound: float) -> tuple[int, int]:
    """Choose the width of the digits and the byte of digit 0: the first that nearly meets the bound, or the best."""
    costs = {}
    for bits in DIGIT_BITS:
        window = (1 << bits) - 1
        ring = np.concatenate((counts, counts[: window - 1]))
        sums = np.cumsum(np.concatenate(([0], ring)))
        start = int((sums[window:] - sums[:-window]).argmax())
        rest = np.roll(counts, -start)[window:]
        digits = np.concatenate((ring[start : start + window], [rest.sum()])) / counts.sum()
        if bits == 1 and digits[0] > DOMINANT:
            return bits, start
        packed = digits
        for _ in range(8 // bits - 1):
            packed = np.multiply.outer(packed, digits).ravel()
        # Two symbols become a mask and a constant, at no loss.
        rest_bits = shannon_bits(rest) if np.count_nonzero(rest) <= 2 else huffman_bits(rest)
        costs[bits, start] = huffman_bits(packed * counts.sum() * bits / 8) + rest_bits
        if costs[bits, start] <= (1 + TOLERANCE) * bound:
            return bits, start
    return min(costs, key=costs.__getitem__)


def _split(data: Array, bits: int, start: int) -> tuple[Array, Array]:
    """Return the packed digits and the bytes of the highest digit, which stands for all but `start` and the next."""
    if bits == 1:
        return split_off(data, start)
    escape = (1 << bits) - 1
    digits = data - np.uint8(start)
    np.minimum(digits, escape, out=digits)
    lanes = np.zeros((8 // bits, -(-data.size * bits // 8)), np.uint8)
    lanes.reshape(-1)[: data.size] = digits
    packed = lanes[0]
    for lane in range(1, 8 // bits):
        packed |= lanes[lane] << (bits * lane)
    return packed, data.take(np.flatnonzero(digits == escape))


def _read_split(reader: Reader, count: int, depth: int) -> Array:
    bits, start = reader.number(1), reader.number(1)
    if bits not in DIGIT_BITS:
        raise PayloadError(f"a stream is split into digits of {bits} bits")
    if bits == 1:
        where = read_mask(reader, count, depth)
        return join(where, read_stream(reader, where.size, depth + 1), count, start)
    escape = (1 << bits) - 1
    packed = read_stream(reader, -(-count * bits // 8), depth + 1)
    lanes = np.empty((8 // bits, packed.size), np.uint8)
    for lane in range(8 // bits):
        lanes[lane] = (packed >> (bits * lane)) & escape
    digits = lanes.reshape(-1)[:count]
    where = np.flatnonzero(digits == escape)
    digits += np.uint8(start)
    digits[where] = read_stream(reader, where.size, depth + 1)
    return digits


def _read_halves(reader: Reader, count: int, depth: int) -> Array:
    values = read_stream(reader, count, depth + 1) << np.uint8(1)
    values |= np.unpackbits(_read_bits(reader, count, depth), count=count)
    return values


def _write_huffman(data: Array) -> list[bytes]:
    frame = zstandard.ZstdCompressor(compression_params=_ZSTD).compress(data.data)
    if len(frame) > data.size * (1 - MIN_GAIN) - 4:
        return [bytes([RAW]), data.tobytes()]
    return [bytes([HUFFMAN]), varint(len(frame)), frame]


def _write_range(data: Array) -> list[bytes]:
    coded = rangecoder.range_coded(data)
    if coded is None:
        return [bytes([RAW]), data.tobytes()]
    width, code = coded
    return [bytes([RANGE_TAGS[width]]), varint(len(code)), code]


def _length(parts: list[bytes]) -> int:
    return sum(map(len, parts))


def _decompress(frame: memoryview, count: int) -> Array:
    try:
        # The declared size is what the decompressor allocates, so it is compared first.
        if zstandard.frame_content_size(frame) != count:
            raise PayloadError("a stream has not the length that its place asks for")
        return np.frombuffer(zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False), np.uint8)
    except zstandard.ZstdError as error:
        raise PayloadError(f"a stream cannot be decoded: {error}") from error
