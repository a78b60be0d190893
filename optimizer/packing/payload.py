"""A weight as a self-describing 1-D uint8 tensor: as it is, or as integer codes with their scales.

A tensor is the codec's own payload. Codes are, numbers little-endian:

| bytes | content                                                        |
| ----- | -------------------------------------------------------------- |
| 4     | magic `OPTQ`                                                   |
| 1     | format version                                                 |
| 1     | dtype of the restored weight: its place in `DTYPES`            |
| 8     | length of the codes' payload                                   |
| 4     | CRC-32 of the 14 bytes before                                  |
| ...   | the codec's payload of the codes, in the weight's shape        |
| ...   | the codec's payload of the scales, float32                     |

Codes with a scale for each row and each column have the magic `OPTR`, a length of zero, and the blocks of `classes`.
"""

import struct
import zlib
from collections.abc import Sequence

import torch

from optimizer.model.weight import Codes, Weight, scale_fits
from optimizer.packing import classes, codec, grid
from optimizer.packing.codec import PayloadError

__all__ = ["PayloadError", "is_payload", "pack", "restored_shape", "stored_codes", "unpack"]

FORMAT_VERSION = 1
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_MAGIC = b"OPTQ"
_BY_ROW_AND_COLUMN = b"OPTR"
_HEAD = struct.Struct("<4sBBQ")
_CHECKSUM = struct.Struct("<I")
_START = _HEAD.size + _CHECKSUM.size


def pack(weight: Weight, threads: int = 1) -> torch.Tensor:
    """The payload of a weight, of its codes if it has any; never of the weight's own shape."""
    if weight.codes is None:
        return codec.encode(weight.tensor, threads)
    if weight.codes.columns is not None:
        return _by_row_and_column(weight.codes, weight.codes.columns, threads)
    codes = weight.codes
    values = codec.encode(codes.values, threads)
    scales = codec.encode(codes.scale, threads)
    head = torch.frombuffer(bytearray(_head(_MAGIC, codes.dtype, values.numel())), dtype=torch.uint8)
    return torch.cat([head, values, scales])


def _by_row_and_column(codes: Codes, columns: torch.Tensor, threads: int) -> torch.Tensor:
    """The payload of codes whose scales are on the grid; ValueError for others."""
    of_rows, of_columns = grid.exponents(codes.scale), grid.exponents(columns)
    if of_rows is None or of_columns is None:
        raise ValueError("scales of rows and columns must be powers of two to the 64th part of whole numbers")
    blocks = classes.pack(codes.values, of_rows, of_columns, threads)
    return torch.frombuffer(bytearray(_head(_BY_ROW_AND_COLUMN, codes.dtype, 0) + blocks), dtype=torch.uint8)


def _head(magic: bytes, dtype: torch.dtype, length: int) -> bytes:
    head = _HEAD.pack(magic, FORMAT_VERSION, DTYPES.index(dtype), length)
    return head + _CHECKSUM.pack(zlib.crc32(head))


def is_payload(tensor: torch.Tensor) -> bool:
    """Whether a stored tensor is a payload, by its dtype, its shape and its first bytes."""
    return _holds_codes(tensor) or _starts_with(tensor, codec.MAGIC)


def unpack(payload: torch.Tensor, shape: Sequence[int] | None = None, threads: int = 1) -> torch.Tensor:
    """The weight in a payload, bit for bit; `shape` is what it must have.

    Raises PayloadError, before anything of the weight's size is allocated where it can, for a payload that is
    unknown, damaged, or of another shape.
    """
    if _holds_codes(payload):
        return _codes(payload, shape, threads).restore()
    return codec.decode(payload, expect_shape=shape, threads=threads)


def stored_codes(payload: torch.Tensor, threads: int = 1) -> torch.Tensor:
    """What a payload holds: the integers of a quantized weight, else the weight; errors as for `unpack`."""
    if _holds_codes(payload):
        return _codes(payload, None, threads).values
    return codec.decode(payload, threads=threads)


def restored_shape(payload: torch.Tensor) -> tuple[int, ...]:
    """The shape that a payload says its weight has, from its first bytes; errors as for `unpack`."""
    if _starts_with(payload, _BY_ROW_AND_COLUMN):
        _split(payload)
        return classes.shape(_blocks(payload))
    if _starts_with(payload, _MAGIC):
        _split(payload)
        payload = payload[_START:]
    return tuple(codec.header(payload).shape)


def _holds_codes(tensor: torch.Tensor) -> bool:
    return _starts_with(tensor, _MAGIC) or _starts_with(tensor, _BY_ROW_AND_COLUMN)


def _starts_with(tensor: torch.Tensor, magic: bytes) -> bool:
    return tensor.dtype == torch.uint8 and tensor.ndim == 1 and bytes(tensor[: len(magic)].tolist()) == magic


def _split(payload: torch.Tensor) -> tuple[torch.dtype, int]:
    """The restored dtype and the length of the codes' payload, checked."""
    raw = bytes(payload[:_START].tolist())
    if len(raw) < _START:
        raise PayloadError("payload is cut short")
    _, version, dtype, length = _HEAD.unpack_from(raw)
    if version != FORMAT_VERSION:
        raise PayloadError(f"payload has format version {version}, this program reads {FORMAT_VERSION}")
    if _CHECKSUM.unpack_from(raw, _HEAD.size)[0] != zlib.crc32(raw[: _HEAD.size]) or dtype >= len(DTYPES):
        raise PayloadError("payload's header is damaged")
    if length > payload.numel() - _START:
        raise PayloadError("payload is cut short")
    return DTYPES[dtype], length


def _codes(payload: torch.Tensor, shape: Sequence[int] | None, threads: int) -> Codes:
    dtype, length = _split(payload)
    if _starts_with(payload, _BY_ROW_AND_COLUMN):
        made, rows, columns = classes.unpack(_blocks(payload), shape, threads)
        return Codes(made, grid.scales(rows), dtype, grid.scales(columns))
    stored, scales = payload[_START : _START + length], payload[_START + length :]
    found, fitting = codec.header(stored), codec.header(scales).shape
    if found.dtype.is_floating_point or not scale_fits(found.shape, fitting):
        raise PayloadError(f"payload's scales of shape {fitting} do not fit {found.dtype} of shape {found.shape}")
    values = codec.decode(stored, expect_shape=shape, threads=threads)
    scale = codec.decode(scales, expect_dtype=torch.float32, threads=threads)
    return Codes(values, scale, dtype)


def _blocks(payload: torch.Tensor) -> memoryview:
    return memoryview(payload[_START:].numpy().tobytes())
