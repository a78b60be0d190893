"""The lossless codec: one tensor to a self-describing 1-D uint8 payload and back, bit for bit.

    payload = encode(tensor)
    tensor = decode(payload, expect_shape=(768, 768), expect_dtype=torch.float16)

Format version 1; numbers are little-endian, `varint` is unsigned LEB128, w is the element's size in bytes.

| bytes   | content                                                                                              |
| ------- | ---------------------------------------------------------------------------------------------------- |
| 4       | magic `OPTC`                                                                                         |
| 4       | CRC-32 of the header: all that follows up to and including the constant's value                      |
| 1       | format version                                                                                       |
| 1       | dtype: its place in `DTYPES`                                                                         |
| 1       | scheme: 0 constant, 1 blocks                                                                         |
| 1       | number of dimensions, then a varint each                                                             |
| varint  | padding: zero bytes at the end of the payload                                                        |
| w       | scheme 0 only: the value of every element                                                            |
| 4 each  | scheme 1 only: u32 CRC-32 of the elements restored from each block                                   |
| 4 each  | scheme 1 only: u32 length of the node of each block but the last                                     |
| …       | scheme 1 only: the nodes of the blocks, of `BLOCK` elements each, the last one of fewer              |
| padding | zeros                                                                                                |

A node starts with its tag; a node of no elements has no bytes at all. Of n elements of w = 2, 4 or 8 bytes:

| tag | name    | content                                                                                        |
| --- | ------- | ---------------------------------------------------------------------------------------------- |
| 0   | raw     | the elements                                                                                   |
| 1   | planes  | w streams: the elements' bytes, lowest first                                                   |
| 2   | rotated | the same of the elements rotated left by one bit: a float's exponent in a byte of its own      |
| 3   | nonzero | a stream of n bits (most significant first), set where an element is not 0; node of the others |
| 4   | offset  | u8 16 m + v, v = 1 or 2; smallest element (m bytes, signed, however the elements are ordered); |
|     |         | node of v-byte codes: elements minus the smallest, modulo 2^8w                                 |
| 5   | symbols | w = 2: u16 s; a stream of s + 1 bits, set at the codes in use; node of ranks among these, of   |
|     |         | 1 byte when they are 256 at most, else 2                                                       |
| 6   | window  | w = 2: u16 start; a stream of n bytes: code - start, or 255 for a code elsewhere; its node     |
| 7   | shift   | w = 2: u8 k; a stream of the codes' bits from k up; a stream of their low k bits               |

Elements of 1 byte are a stream, and so is all else in the end. A stream of n bytes:

| tag | name     | content                                                                                       |
| --- | -------- | --------------------------------------------------------------------------------------------- |
| 0   | raw      | the bytes                                                                                     |
| 1   | constant | the byte that all are                                                                         |
| 2   | huffman  | varint length; a zstd frame that declares its content size                                    |
| 3   | split    | u8 d = 1, 2 or 4; a byte b; a stream of n digits of d bits, min(byte - b modulo 256, 2^d - 1); |
|     |          | stream of the bytes whose digit is 2^d - 1                                                    |
| 4   | halved   | a stream of the bytes' upper 7 bits; a stream of n bits, their lowest                         |
| 5   | bits     | varint length; a range code of 8 n bits, the most significant of a byte first                 |
| 6   | bytes    | varint length; a range code of the bytes                                                      |

Bits (d = 1) are packed most significant first. Of m = n d / 8 bytes, rounded up, that pack digits of 2 or 4 bits, byte
i holds the digits i, i + m, i + 2 m, …, the first in its lowest bits.

A range code (of fewer than n bytes, n at most 2^18) is, big-endian and without the zero bytes at its end, the number
that the range coder of `constriction` reads: words of 32 bits, 24-bit probabilities, a state of 64 bits. First come the
choices that make a histogram (see `bisection`), a choice out of k having probabilities of 2^24 div k, the last of what
is left; then the symbols. Of a symbols in the alphabet, each has the probability 2^-24 (1 + share (2^24 - a) div 2^40),
and the first of the largest share also what is left. The code ends with the last 64-bit number of the coder's interval,
cleared below the highest bit in which the first one differs; while a carry is pending, with the library's last words.

Choice. A range code is decoded at some 30 MB/s, a Huffman code at twenty times that. `encode` therefore takes a range
code only for a stream that otherwise, its parts range coded or not, costs more than 1.5 % above its own order-0
entropy, and only where that is less: mostly for streams of a few KB, in which a code table weighs. In tensors of more
than 2^18 elements it takes none for more than 2^13 bytes, in those of more than 2^21 none at all.

Checks. The restored elements are summed, block by block, rather than the payload: a mistake of any library on the way
back is then found too, and not only a damaged file. Padding, lengths and counts must come out exactly.

Size. At most 3 % above `order0_bits` with 0 to 95 % zeros, from 64 KiB on for int8 codes, float16, bfloat16 and, up to
90 %, float32 (95 %: from 128 KiB on). For codes of at most 256 values in wider integers, too, from 16,384 elements on
up to 70 % and from 32,768 up to 95 %: of fewer, some 30 fixed bytes and a dozen or two for a histogram are more. Codes
of more values need several elements for each, because `order0_bits` does not count the histogram. At most 64 bytes
above the raw size for tensors of a single block. All that is proven by `tests/packing/test_size.py`.

Hostile payloads. Nothing is allocated for a size that is only claimed: a payload restores at most `MAX_EXPANSION` times
its own length (`encode` pads a constant tensor to that), a block no more than `BLOCK` elements, and the count of every
stream is known before it is read. A caller who knows the tensor passes `expect_shape` and `expect_dtype`.
"""

import math
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from optimizer.packing.blocks import read_block, write_block
from optimizer.packing.entropy import order0_bits, unsigned_values
from optimizer.packing.reader import PayloadError, Reader, varint

__all__ = ["Header", "PayloadError", "decode", "encode", "header", "order0_bits"]

Array = NDArray[Any]
Item = TypeVar("Item")
Result = TypeVar("Result")

MAGIC = b"OPTC"
VERSION = 1
DTYPES = (
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float64,
    torch.bool,
    torch.int8,
    torch.uint8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint16,
    torch.uint32,
    torch.uint64,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
)
SCHEMES = ("constant", "blocks")
BLOCK = 1 << 20
"""Elements of a block."""
RANGED = ((1 << 18, 1 << 18), (1 << 21, 1 << 13))
"""Elements of a tensor, and the bytes up to which a stream of it may be range coded; none in larger ones."""
MAX_EXPANSION = 1 << 20
"""Restored bytes that one byte of payload can stand for."""
MAX_HEADER_BYTES = 1 << 12
"""More than any header takes."""


@dataclass(frozen=True)
class Header:
    """What a payload says of itself; `padding`, `value` and `size` (of the header, in bytes) serve the decoder."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    scheme: str
    padding: int
    value: bytes
    size: int

    @property
    def raw_bytes(self) -> int:
        """Size of the restored elements in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def encode(tensor: torch.Tensor, threads: int = 1) -> torch.Tensor:
    """Pack a dense tensor of any shape and strides into a 1-D uint8 payload, the same bytes for any number of threads.

    Its length never is that of a 1-D `tensor`. A dtype that is not in `DTYPES` is a `TypeError`.
    """
    if tensor.dtype not in DTYPES:
        raise TypeError(f"cannot pack a tensor of {tensor.dtype}")
    values = unsigned_values(tensor)
    if values.size and bool((values == values[0]).all()):
        return _assemble(tensor, "constant", values[:1].tobytes(), [])
    ranged = next((most for elements, most in RANGED if values.size <= elements), 0)
    signed = None if tensor.is_floating_point() else tensor.dtype.is_signed
    blocks = [values[start : start + BLOCK] for start in range(0, values.size, BLOCK)]

    def pack(block: Array) -> tuple[bytes, bytes]:
        return zlib.crc32(block.data).to_bytes(4, "little"), write_block(block, signed, ranged)

    packed = _mapped(pack, blocks, threads)
    sums, nodes = [entry for entry, _ in packed], [node for _, node in packed]
    lengths = [len(node).to_bytes(4, "little") for node in nodes[:-1]]
    return _assemble(tensor, "blocks", b"", [*sums, *lengths, *nodes])


def decode(
    payload: torch.Tensor,
    expect_shape: Sequence[int] | None = None,
    expect_dtype: torch.dtype | None = None,
    threads: int = 1,
) -> torch.Tensor:
    """Restore the tensor that `encode` packed, contiguous and on the CPU.

    `PayloadError` for anything that is not a whole, undamaged payload of this format version, or not of the shape and
    dtype expected; sizes are judged before they are allocated.
    """
    data = _bytes_of(payload)
    head = header(payload)
    if expect_shape is not None and tuple(expect_shape) != head.shape:
        raise PayloadError(f"payload holds shape {head.shape}, not {tuple(expect_shape)}")
    if expect_dtype not in (None, head.dtype):
        raise PayloadError(f"payload holds {head.dtype}, not {expect_dtype}")
    if head.raw_bytes > MAX_EXPANSION * len(data):
        raise PayloadError(f"payload of {len(data)} bytes claims {head.raw_bytes} bytes")
    end = len(data) - head.padding
    if end < head.size or np.frombuffer(data[end:], np.uint8).any():
        raise PayloadError("payload ends in something else than its padding")
    body = data[head.size : end]
    if head.scheme == "blocks":
        return _read_blocks(head, Reader(body), threads)
    if body:
        raise PayloadError("a constant is followed by other bytes")
    tensor = torch.empty(head.shape, dtype=head.dtype)
    unsigned_values(tensor)[:] = np.frombuffer(head.value, f"<u{head.dtype.itemsize}")
    return tensor


def header(payload: torch.Tensor) -> Header:
    """Read what a payload says of itself from its first bytes (4 KiB always do), or raise `PayloadError`."""
    data = _bytes_of(payload)[:MAX_HEADER_BYTES]
    reader = Reader(data)
    if bytes(reader.take(4)) != MAGIC:
        raise PayloadError("not a payload of this codec")
    crc, version = reader.number(4), reader.number(1)
    if version != VERSION:
        raise PayloadError(f"payload has format version {version}, this program reads {VERSION}")
    dtype, scheme, dimensions = (reader.number(1) for _ in range(3))
    if dtype >= len(DTYPES) or scheme >= len(SCHEMES):
        raise PayloadError(f"payload has unknown dtype {dtype} or scheme {scheme}")
    shape = tuple(reader.varint() for _ in range(dimensions))
    if math.prod(max(1, length) for length in shape) * DTYPES[dtype].itemsize >= 1 << 63:
        raise PayloadError("payload claims more elements than can be addressed")
    padding = reader.varint()
    value = bytes(reader.take(DTYPES[dtype].itemsize)) if SCHEMES[scheme] == "constant" else b""
    if zlib.crc32(data[8 : reader.position]) != crc:
        raise PayloadError("payload's header is damaged")
    return Header(DTYPES[dtype], shape, SCHEMES[scheme], padding, value, reader.position)


def _assemble(tensor: torch.Tensor, scheme: str, value: bytes, body: list[bytes]) -> torch.Tensor:
    """Join header, body and the padding that `MAX_EXPANSION` and the rule about 1-D shapes ask for."""
    start = bytes([VERSION, DTYPES.index(tensor.dtype), SCHEMES.index(scheme), tensor.dim()])
    start += b"".join(map(varint, tensor.shape))
    body_bytes = sum(map(len, body)) + len(value)
    justified = -(-tensor.numel() * tensor.element_size() // MAX_EXPANSION)

    def total(padding: int) -> int:
        return len(MAGIC) + 4 + len(start) + len(varint(padding)) + body_bytes + padding

    padding = max(0, justified - total(0))
    if tensor.dim() == 1 and total(padding) == tensor.numel():
        padding += 1
    head = start + varint(padding) + value
    crc = zlib.crc32(head).to_bytes(4, "little")
    return torch.frombuffer(bytearray().join([MAGIC, crc, head, *body, bytes(padding)]), dtype=torch.uint8)


def _read_blocks(head: Header, reader: Reader, threads: int) -> torch.Tensor:
    starts = range(0, math.prod(head.shape), BLOCK)
    sums = reader.array(len(starts), 4).tolist()
    lengths = reader.array(max(0, len(starts) - 1), 4).tolist()
    nodes = [reader.take(length) for length in lengths]
    nodes += [reader.take(reader.left)] if starts else []
    if reader.left:
        raise PayloadError("payload is longer than its blocks")
    tensor = torch.empty(head.shape, dtype=head.dtype)
    values = unsigned_values(tensor)

    def restore(job: tuple[int, memoryview, int]) -> None:
        start, node, crc = job
        block = values[start : start + BLOCK]
        node_reader = Reader(node)
        block[:] = read_block(node_reader, block.size, head.dtype.itemsize)
        if node_reader.left or zlib.crc32(block.data) != crc:
            raise PayloadError("a block does not restore what was packed")

    _mapped(restore, list(zip(starts, nodes, sums, strict=True)), threads)
    return tensor


def _mapped(function: Callable[[Item], Result], items: Sequence[Item], threads: int) -> list[Result]:
    if min(threads, len(items)) <= 1:
        return list(map(function, items))
    # The time goes to zstd and numpy, which release the interpreter's lock.
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, items))


def _bytes_of(payload: torch.Tensor) -> memoryview:
    if payload.dtype != torch.uint8 or payload.dim() != 1:
        raise PayloadError(f"a payload is 1-D uint8, not {payload.dim()}-D {payload.dtype}")
    return payload.detach().cpu().contiguous().numpy().data
