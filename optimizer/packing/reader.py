"""Reading a payload: a cursor that never leaves it, and the numbers of variable length."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_DEPTH = 16
"""Nodes within nodes; bounds the time that a hostile payload can take."""


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

    def varint(self) -> int:
        """Read an unsigned LEB128 number below 2^63."""
        number = 0
        for shift in range(0, 63, 7):
            byte = self.number(1)
            number |= (byte & 127) << shift
            if byte < 128:
                return number
        raise PayloadError("a number is too large")

    def array(self, count: int, itemsize: int = 1) -> NDArray[Any]:
        """Read `count` unsigned integers of `itemsize` bytes as a read-only array."""
        return np.frombuffer(self.take(count * itemsize), f"<u{itemsize}")


def varint(number: int) -> bytes:
    """Return a non-negative number as unsigned LEB128."""
    parts = bytearray()
    while number >= 128:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def check_depth(depth: int) -> None:
    """Raise `PayloadError` for nodes nested deeper than any encoder writes."""
    if depth > MAX_DEPTH:
        raise PayloadError("nodes are nested too deep")
