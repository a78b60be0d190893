"""Range coding of a stream: within a few bytes of its entropy, at a twentieth of the speed of Huffman coding.

The coder is that of the library `constriction`: 24-bit probabilities, 32-bit words, 64-bit state. It is given integers
only, so that no machine's floating point has a say. The layout of a code is in `codec`.
"""

from collections.abc import Callable
from typing import Any

import constriction  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray

from optimizer.packing import bisection
from optimizer.packing.reader import PayloadError

Array = NDArray[Any]
Categorical, Uniform = constriction.stream.model.Categorical, constriction.stream.model.Uniform
RangeDecoder, RangeEncoder = constriction.stream.queue.RangeDecoder, constriction.stream.queue.RangeEncoder

PRECISION = 1 << 24
STATE = 1 << 64
BITS, BYTES = 1, 8
"""Widths of a symbol: the bits of a mask, or whole bytes."""
MAX_COUNT = 1 << 18
"""Bytes of the largest stream that is coded this way."""


def range_coded(data: Array) -> tuple[int, bytes] | None:
    """Code a non-empty uint8 array; returns the width of its symbols and the code, or None where nothing is gained."""
    ones = int(np.bitwise_count(data).sum(dtype=np.int64))
    counts = {BITS: np.array([8 * data.size - ones, ones]), BYTES: np.bincount(data, minlength=256)}
    plans = {width: bisection.plan(counted) for width, counted in counts.items()}
    width = min(plans, key=lambda width: plans[width][0])
    bits, choices = plans[width]
    if bits >= 8 * data.size:
        return None
    chosen = iter(choices)
    model = _model(lambda _: next(chosen)[1], 1 << width, data.size * 8 // width)
    code = _code(choices, model, (data if width == BYTES else np.unpackbits(data)).astype(np.int32))
    return (width, code) if len(code) < data.size else None


def range_decoded(code: memoryview, width: int, count: int) -> Array:
    """Undo `range_coded` for `count` bytes; `PayloadError` for what it never returns."""
    if count > MAX_COUNT or len(code) >= count:
        raise PayloadError(f"a stream of {count} bytes is range coded in {len(code)} bytes")
    decoder = RangeDecoder(np.frombuffer(bytes(code) + bytes(-len(code) % 4), ">u4").astype(np.uint32))
    choices: bisection.Choices = []

    def choose(possible: int) -> int:
        choices.append((possible, int(decoder.decode(Uniform(possible)))))
        return choices[-1][1]

    try:
        model = _model(choose, 1 << width, count * 8 // width)
        symbols = decoder.decode(model, count * 8 // width)
    except AssertionError as error:
        raise PayloadError("a range code is damaged") from error
    # A decoder cannot tell where its code ends, or whether it is the shortest one.
    if _code(choices, model, symbols) != code:
        raise PayloadError("a range code is damaged")
    data = symbols.astype(np.uint8)
    return data if width == BYTES else np.packbits(data)


def _model(choose: Callable[[int], int], alphabet: int, count: int) -> Any:
    """Build the model that the choices describe: each symbol 1 of `PRECISION`, and what is left by its share."""
    free = PRECISION - alphabet
    weights = [share * free >> bisection.UNIT_BITS for share in bisection.shares(choose, alphabet, count)]
    weights[weights.index(max(weights))] += free - sum(weights)
    # The library scales floats to what is left after giving 1 to each; these add up to that and are taken as they are.
    return Categorical(np.array(weights, np.float64), perfect=False)


def _code(choices: bisection.Choices, model: Any, symbols: Array) -> bytes:
    encoder = RangeEncoder()
    for possible, chosen in choices:
        encoder.encode(chosen, Uniform(possible))
    encoder.encode(symbols, model)
    return _shortest(encoder)


def _shortest(encoder: Any) -> bytes:
    """Return the code, its last words replaced by the shortest number in the interval that the coder has come to."""
    code: bytes = encoder.get_compressed().astype(">u4").tobytes()
    done, (low, size) = encoder.pos()
    last = low + size - 1
    if last < STATE:  # else a carry is pending, which the library has resolved in its words
        shift = max(0, (low ^ last).bit_length() - 1)
        code = code[: 4 * done] + (last >> shift << shift).to_bytes(8, "big")
    return code.rstrip(b"\0")
