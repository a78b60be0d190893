"""Write a safetensors file tensor by tensor, so that no more than one is in memory.

Format: https://github.com/huggingface/safetensors#format - 8 bytes of header length, the JSON header, the data. The
header needs every offset, so the data goes to a file beside it first.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""What a header calls each dtype."""
NAMES = {dtype: name for name, dtype in DTYPES.items()}
_ALIGNMENT = 8
_CHUNK = 1 << 20


@dataclass(frozen=True)
class _Entry:
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    size: int


def write(path: Path, tensors: Iterable[tuple[str, torch.Tensor]]) -> dict[str, int]:
    """Write named tensors to `path` and return their sizes in bytes; the bytes depend on names and values alone."""
    spool = path.with_name(path.name + ".data")
    entries: list[_Entry] = []
    try:
        with spool.open("w+b") as data:
            for name, tensor in tensors:
                raw = tensor_bytes(tensor)
                entries.append(_Entry(name, tensor.dtype, tuple(tensor.shape), data.tell(), len(raw)))
                data.write(raw)
            # Wide dtypes first keeps every tensor aligned without padding, which readers that map the file rely on.
            entries.sort(key=lambda entry: (-entry.dtype.itemsize, entry.name))
            with path.open("wb") as file:
                file.write(_header(entries))
                for entry in entries:
                    data.seek(entry.start)
                    _copy(data, file, entry.size)
    finally:
        spool.unlink(missing_ok=True)
    return {entry.name: entry.size for entry in entries}


def write_index(path: Path, stored: Mapping[str, Mapping[str, int]]) -> None:
    """Write the index of several files; `stored` gives each file's tensors with their sizes in bytes."""
    weight_map = {name: file for file, sizes in stored.items() for name in sizes}
    total = sum(sum(sizes.values()) for sizes in stored.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    path.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def tensor_bytes(tensor: torch.Tensor) -> memoryview:
    """The raw little-endian bytes of a tensor of any dtype, without a copy where it is contiguous."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data


def _header(entries: list[_Entry]) -> bytes:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for entry in entries:
        header[entry.name] = {
            "dtype": NAMES[entry.dtype],
            "shape": entry.shape,
            "data_offsets": [offset, offset + entry.size],
        }
        offset += entry.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _copy(source: BinaryIO, target: BinaryIO, size: int) -> None:
    while size:
        chunk = source.read(min(size, _CHUNK))
        assert chunk, "the spool is shorter than what was written to it"
        target.write(chunk)
        size -= len(chunk)
