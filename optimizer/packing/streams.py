"""One stream of bytes to a node and back: Huffman coded by zstd, with skewed streams split until Huffman suits them.

A Huffman code spends a whole bit on a byte that is nearly certain. A skewed stream is therefore split into digits of a
few bits (which of the commonest bytes this is, or that it is none of them), several to a byte and a stream again, and
the bytes that are none of them. This loses nothing: the entropy of a stream is that of its digits and that of the rest.
The layout of the nodes is in `codec`.
"""

from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from optimizer.packing.entropy import histogram, huffman_bits, shannon_bits

Array = NDArray[Any]

RAW, CONSTANT, HUFFMAN, SPLIT = range(4)
DIGIT_BITS = (1, 2, 4)
MAX_DEPTH = 16
"""Nodes within nodes; bounds the time that a hostile payload can take."""
TOLERANCE = 0.012
"""Share of the entropy that a Huffman code may lose before the stream is split."""
SPLIT_BITS = 400
"""Fixed cost of splitting: two more nodes, each with a zstd frame and a code table."""
DOMINANT = 0.8
"""Share of one byte from which on its own mask is the split, without weighing others."""
SAMPLED = 1 << 18
STRIDE = 31
"""Streams of `SAMPLED` bytes and more are judged by every 31st: a prime, so that it hardly follows a matrix's rows."""
SPARSE = 0.1
"""Share of ones up to which `flatnonzero` of numpy takes another way, up to three times as slow."""
MIN_GAIN = 1 / 256
"""Streams that shrink by less are stored raw, for speed of reading."""

# Huffman coding and as little matching as zstd can do, because on weights matches only cost. A `target_length` above 0
# would turn Huffman coding off with this strategy.
_ZSTD = zstandard.ZstdCompressionParameters(
    strategy=zstandard.STRATEGY_FAST, window_log=17, hash_log=6, chain_log=6, search_log=1, min_match=7, target_length=0
)


class PayloadError(ValueError):
    """A payload is damaged, cut short, of another format, or not of the tensor that was expected."""


class Reader:
    """A cursor over a payload that never reads past its end."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self.position = 0

    @property
    def left(self) -> int:
        """Bytes not yet read."""
        return len(self._data) - self.position

    def take(self, count: int) -> memoryview:
        """Return the next bytes; `PayloadError` when there are fewer."""
        if count > self.left:
            raise PayloadError("payload is cut short")
        self.position += count
        return self._data[self.position - count : self.position]

    def number(self, size: int) -> int:
        """Read a little-endian unsigned integer of `size` bytes."""
        return int.from_bytes(self.take(size), "little")

    def array(self, count: int, itemsize: int = 1) -> Array:
        """Read `count` unsigned integers of `itemsize` bytes as a read-only array."""
        return np.frombuffer(self.take(count * itemsize), f"<u{itemsize}")


def write_stream(data: Array, depth: int = 0) -> list[bytes]:
    """Encode a uint8 array; returns the parts of the node, nothing at all for an empty array."""
    if not data.size:
        return []
    if (data == data[0]).all():
        return [bytes([CONSTANT, data[0]])]
    counts = histogram(data) if data.size < SAMPLED else histogram(data[::STRIDE]) * STRIDE
    bound = shannon_bits(counts)
    if depth < MAX_DEPTH and huffman_bits(counts) > SPLIT_BITS + (1 + TOLERANCE) * bound:
        bits, start = _best_split(counts, bound)
        packed, rest = _split(data, bits, start)
        return [bytes([SPLIT, bits, start]), *write_stream(packed, depth + 1), *write_stream(rest, depth + 1)]
    frame = zstandard.ZstdCompressor(compression_params=_ZSTD).compress(data.data)
    if len(frame) > data.size * (1 - MIN_GAIN) - 4:
        return [bytes([RAW]), data.tobytes()]
    return [bytes([HUFFMAN]), len(frame).to_bytes(4, "little"), frame]


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
        return _decompress(reader.take(reader.number(4)), count)
    if tag == SPLIT:
        return _read_split(reader, count, depth)
    raise PayloadError(f"unknown stream {tag}")


def check_depth(depth: int) -> None:
    """Raise `PayloadError` for nodes nested deeper than any encoder writes."""
    if depth > MAX_DEPTH:
        raise PayloadError("nodes are nested too deep")


def split_off(values: Array, common: int) -> tuple[Array, Array]:
    """Return the mask of the values that are not `common`, eight to a byte, and these values."""
    mask = np.packbits(values != common)
    # Indices are several times as fast as a boolean mask, here and in `join`.
    return mask, values.take(_places(mask, values.size))


def read_mask(reader: Reader, count: int, depth: int) -> Array:
    """Read the mask that `split_off` made of `count` values; returns the indices of its ones."""
    mask = read_stream(reader, -(-count // 8), depth + 1)
    if count % 8 and mask[-1] & (0xFF >> count % 8):
        raise PayloadError("a mask is longer than its place asks for")
    return _places(mask, count)


def join(where: Array, rest: Array, count: int, common: int) -> Array:
    """Undo `split_off`: `rest` at the indices `where`, `common` elsewhere."""
    values = np.full(count, common, rest.dtype)
    values[where] = rest
    return values


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


def _decompress(frame: memoryview, count: int) -> Array:
    try:
        # The declared size is what the decompressor allocates, so it is compared first.
        if zstandard.frame_content_size(frame) != count:
            raise PayloadError("a stream has not the length that its place asks for")
        return np.frombuffer(zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False), np.uint8)
    except zstandard.ZstdError as error:
        raise PayloadError(f"a stream cannot be decoded: {error}") from error
