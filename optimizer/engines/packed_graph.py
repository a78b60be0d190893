"""An OpenVINO graph as one file: its XML compressed, its constants entropy-coded; loaded without writing them out.

Numbers are little-endian, lengths and places are varints, a block is a length and as many bytes:

| bytes | content                                                                        |
| ----- | ------------------------------------------------------------------------------ |
| 4     | magic `OPTG`                                                                   |
| 1     | format version                                                                 |
| 4     | CRC-32 of all that follows                                                     |
| ...   | block: the XML, a zstd frame                                                   |
| ...   | block: what is left of the constants' file without the large ones, a zstd frame |
| ...   | of each large constant, in the order of offsets: its kind, a byte; its blocks  |

The XML says where each constant lies, and of what type and shape it is. Kinds, and their blocks:

| kind | name     | blocks                                                                                  |
| ---- | -------- | --------------------------------------------------------------------------------------- |
| 0    | plain    | the codec's payload of the constant                                                     |
| 1    | restored | the payload of codes, whose restored matrix it is                                       |
| 2    | rounded  | the payload of codes of which it is another rounding, see `Origin`; two places: those   |
|      |          | of the constants that scale its rows and columns, counted from 1 in the order of        |
|      |          | offsets, 0 for none; where the rounding came out otherwise (int64); the values there    |
"""

import re
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import zstandard
from numpy.typing import NDArray

from optimizer.engines.engine_codes import Origin, digest
from optimizer.engines.packages import core, openvino
from optimizer.model.weight import Weight
from optimizer.packing import codec, payload
from optimizer.packing.reader import PayloadError, Reader, varint

Array = NDArray[Any]

MAGIC = b"OPTG"
VERSION = 1
_START = len(MAGIC) + 1 + 4
_LARGE = 2048
"""Bytes from which a constant has a payload of its own; for smaller ones its header would weigh."""
_LEVEL = 19
_MOST_XML = 1 << 30
_PLAIN, _RESTORED, _ROUNDED = range(3)
_CONSTANT = re.compile(rb'<data element_type="(\w+)" shape="([\d, ]*)" offset="(\d+)" size="(\d+)"')
_NUMPY = {
    "f64": "<f8", "f32": "<f4", "f16": "<f2", "bf16": "<u2",
    "i64": "<i8", "i32": "<i4", "i16": "<i2", "i8": "i1", "u8": "u1",
}  # fmt: skip


@dataclass(frozen=True)
class _Constant:
    kind: str
    shape: tuple[int, ...]
    offset: int
    size: int

    @property
    def end(self) -> int:
        return self.offset + self.size

    def array(self, data: Array) -> Array:
        """The constant in the bytes of a file; one of a type that numpy does not know, as bytes."""
        raw = data[self.offset : self.end]
        return raw.view(_NUMPY[self.kind]).reshape(self.shape) if self.kind in _NUMPY else raw


def pack_graph(xml: bytes, constants: bytes, origins: Mapping[bytes, Origin] | None = None, threads: int = 1) -> bytes:
    """The packed file of a graph's two files; `origins` gives, by digest, the constants that follow from codes."""
    data = np.frombuffer(constants, np.uint8)
    places = _places(xml, len(data))
    found = {digest(one.array(data)): place for place, one in enumerate(places, 1)}
    compress = zstandard.ZstdCompressor(level=_LEVEL).compress
    rest = b"".join(bytes(data[first:last]) for first, last in _gaps(places, len(data)))

    def pack(one: _Constant) -> bytes:
        values = one.array(data)
        origin = (origins or {}).get(digest(values))
        return (origin and _follows(values, origin, found)) or bytes([_PLAIN]) + _coded(values)

    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(pack, _large(places)))
    body = b"".join([_block(compress(xml)), _block(compress(rest)), *parts])
    return MAGIC + bytes([VERSION]) + zlib.crc32(body).to_bytes(4, "little") + body


def unpack_graph(packed: bytes, threads: int = 1) -> tuple[bytes, Array]:
    """The bytes of a graph's XML and of its constants, exactly; PayloadError for a file that is damaged."""
    if packed[: len(MAGIC)] != MAGIC or len(packed) < _START:
        raise PayloadError("not a packed graph")
    if packed[len(MAGIC)] != VERSION:
        raise PayloadError(f"packed graph has format version {packed[len(MAGIC)]}, this program reads {VERSION}")
    body = memoryview(packed)[_START:]
    if zlib.crc32(body) != int.from_bytes(packed[_START - 4 : _START], "little"):
        raise PayloadError("packed graph is damaged or cut short")
    reader = Reader(body)
    xml, rest = (_decompressed(_read(reader)) for _ in range(2))
    places = _places(xml)
    size = len(rest) + sum(one.size for one in _large(places))
    data = np.empty(size, np.uint8)
    position = 0
    for first, last in _gaps(places, size):
        data[first:last] = np.frombuffer(rest[position : position + last - first], np.uint8)
        position += last - first
    jobs = [_job(one, reader) for one in _large(places)]
    # Those that follow from others come after these.
    for rounded in (False, True):
        with ThreadPoolExecutor(threads) as pool:
            chosen = [job for job in jobs if (job.kind == _ROUNDED) is rounded]
            list(pool.map(lambda job: _restore(job, places, data), chosen))
    return xml, data


def read_packed(packed: bytes, threads: int = 1) -> Any:
    """The graph (`openvino.Model`) in a packed file, straight from memory."""
    xml, data = unpack_graph(packed, threads)
    ov = openvino()
    return core().read_model(xml, ov.Tensor(data))


@dataclass(frozen=True)
class _Job:
    constant: _Constant
    kind: int
    blocks: list[memoryview]
    rows: int = 0
    columns: int = 0


def _job(constant: _Constant, reader: Reader) -> _Job:
    kind = reader.number(1)
    if kind not in (_PLAIN, _RESTORED, _ROUNDED):
        raise PayloadError(f"packed graph has a constant of an unknown kind {kind}")
    blocks = [_read(reader)]
    if kind != _ROUNDED:
        return _Job(constant, kind, blocks)
    rows, columns = reader.varint(), reader.varint()
    return _Job(constant, kind, [*blocks, _read(reader), _read(reader)], rows, columns)


def _restore(job: _Job, places: Sequence[_Constant], data: Array) -> None:
    """Write one constant where it belongs in the file's bytes."""
    target = job.constant.array(data)
    first, *others = (torch.frombuffer(bytearray(block), dtype=torch.uint8) for block in job.blocks)
    if job.kind == _PLAIN:
        target[...] = _array(codec.decode(first, expect_shape=target.shape))
    elif job.kind == _RESTORED:
        target[...] = _array(payload.unpack(first, target.shape))
    else:
        scales = [places[place - 1].array(data) if place else None for place in (job.rows, job.columns)]
        target[...] = _rounded(payload.unpack(first, target.shape), *scales)
        where, values = (codec.decode(block).numpy() for block in others)
        target.reshape(-1)[where] = values


def _follows(values: Array, origin: Origin, places: Mapping[bytes, int]) -> bytes | None:
    """A constant as codes and what it takes to come from them to it; None if it does not come of them so."""
    weight = Weight("", origin.codes, None)
    codes = _block(payload.pack(weight).numpy().tobytes())
    if origin.row_scale is None:
        same = np.array_equal(_array(weight.tensor).view(np.uint8), values.view(np.uint8))
        return bytes([_RESTORED]) + codes if same else None
    scales = (origin.row_scale, origin.column_scale)
    found = [0 if scale is None else places.get(digest(scale), 0) for scale in scales]
    if not found[0] or (origin.column_scale is not None and not found[1]):
        return None
    rounded = _rounded(weight.tensor, *scales)
    where = np.flatnonzero(rounded != values)
    otherwise = _coded(where) + _coded(values.reshape(-1)[where])
    return bytes([_ROUNDED]) + codes + varint(found[0]) + varint(found[1]) + otherwise


def _rounded(matrix: torch.Tensor, rows: Array | None, columns: Array | None) -> Array:
    """A matrix over the scales of its rows and columns, in float64, to the nearest int8."""
    ratios = matrix.double().numpy()
    if columns is not None:
        ratios = ratios / columns.reshape(1, -1).astype(np.float64)
    if rows is not None:
        ratios = ratios / rows.astype(np.float64)
    nearest: Array = np.rint(ratios).clip(-128, 127).astype(np.int8)
    return nearest


def _places(xml: bytes, size: int | None = None) -> list[_Constant]:
    """The distinct constants that an XML tells of, in the order of their offsets."""
    found = {
        _Constant(kind.decode(), tuple(int(length) for length in shape.split(b",") if length.strip()), int(at), int(n))
        for kind, shape, at, n in _CONSTANT.findall(xml)
    }
    places: list[_Constant] = []
    for one in sorted(found, key=lambda one: (one.offset, -one.size, one.kind, one.shape)):
        if not places or one.offset >= places[-1].end:
            places.append(one)
    if size is not None and places and places[-1].end > size:
        raise PayloadError(f"the graph's constants end at {places[-1].end}, their file at {size}")
    return places


def _large(places: Sequence[_Constant]) -> list[_Constant]:
    return [one for one in places if one.size >= _LARGE]


def _gaps(places: Sequence[_Constant], size: int) -> list[tuple[int, int]]:
    """Where the file holds something else than large constants."""
    starts = [0, *(one.end for one in _large(places))]
    return list(zip(starts, [*(one.offset for one in _large(places)), size], strict=True))


def _coded(values: Array) -> bytes:
    return _block(codec.encode(torch.from_numpy(np.array(values))).numpy().tobytes())


def _array(tensor: torch.Tensor) -> Array:
    """A tensor's values; of bfloat16, which numpy does not know, the bits."""
    array: Array = (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array


def _block(data: bytes) -> bytes:
    return varint(len(data)) + data


def _read(reader: Reader) -> memoryview:
    return reader.take(reader.varint())


def _decompressed(frame: memoryview) -> bytes:
    try:
        return zstandard.ZstdDecompressor().decompress(frame, max_output_size=_MOST_XML)
    except zstandard.ZstdError as error:
        raise PayloadError(f"packed graph is damaged: {error}") from None
