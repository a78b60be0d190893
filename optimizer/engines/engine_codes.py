"""Codes that `quantize` left, in a graph: as its int8 weights where it can hold them, else what became of them.

NNCF's SmoothQuant moves the difficulty of an activation's columns into the weights, which are then no codes times a
scale a row any more. They still follow from the codes by one rounding, so that a packed graph need hold no more than
the codes.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from optimizer.engines.packages import openvino
from optimizer.engines.unread import Selection
from optimizer.model.weight import Codes

Array = NDArray[Any]

LARGEST = 127
"""The largest code of a graph's symmetric int8 weights."""


@dataclass(frozen=True)
class Origin:
    """How a constant of a graph follows from codes.

    Without `row_scale` it is the restored matrix. With it, an int8 matrix: the restored one, over `column_scale`
    `[1, …, columns]` if there is one and over `row_scale` `[rows, 1]`, rounded.
    """

    codes: Codes
    row_scale: Array | None = None
    column_scale: Array | None = None


def coded_readers(graph: Any, codes: Iterable[Codes]) -> dict[str, Codes]:
    """Of a graph in float32, the names of the operations that read a matrix of codes, with the codes.

    A matrix is known by its values, because no name survives every way from a checkpoint into a graph.
    """
    known = {digest(one.restore().float().numpy()): one for one in codes}
    return {
        reader.get_node().get_friendly_name(): known[found]
        for node in graph.get_ordered_ops()
        if _is_matrix(node) and (found := digest(node.data)) in known
        for reader in node.output(0).get_target_inputs()
    }


def narrowed_codes(codes: Iterable[Codes], selections: Sequence[Selection]) -> Iterator[Codes]:
    """The codes, and those that are left of them after the selections made of their matrices.

    None for columns of codes with several scales a row: a group of columns would be of several lengths.
    """
    made: dict[bytes, list[Selection]] = {}
    for selection in selections:
        made.setdefault(digest(selection.matrix.numpy()), []).append(selection)
    for one in codes:
        yield one
        for selection in made.get(digest(one.restore().float().numpy()), []) if made else []:
            if selection.columns is None or one.scale.ndim < 3:
                yield _selected(one, selection)


def _selected(codes: Codes, selection: Selection) -> Codes:
    values, scale, columns = codes.values, codes.scale, codes.columns
    if selection.rows is not None:
        values = values.index_select(0, selection.rows)
        scale = scale.index_select(0, selection.rows) if scale.ndim else scale
    if selection.columns is not None:
        values = values.index_select(1, selection.columns)
        columns = None if columns is None else columns.index_select(1, selection.columns)
    return replace(codes, values=values, scale=scale, columns=columns)


def hand_codes_to_engine(graph: Any, readers: Mapping[str, Codes]) -> int:
    """Put codes in place of the int8 weights that NNCF rounded for these readers; the number of matrices replaced.

    Left as they are: codes beyond +-127 or with several scales a row, and weights that SmoothQuant has scaled.
    """
    replaced = 0
    for reader, codes, (constant, scale) in _int8_weights(graph, readers):
        if not holds(codes) or _column_scale(reader, codes) is not None or tuple(scale.shape) != (len(codes.values), 1):
            continue
        source = _source(reader, constant)
        source.replace(restored(codes, source.get_node()).output(0))
        replaced += 1
    return replaced


def origins(graph: Any, readers: Mapping[str, Codes]) -> dict[bytes, Origin]:
    """By the digest of its values, how each constant of a graph that came from codes follows from them."""
    found = {digest(one.restore().float().numpy()): Origin(one) for one in readers.values()}
    for reader, codes, (constant, scale) in _int8_weights(graph, readers):
        found[digest(constant.data)] = Origin(codes, np.array(scale.data), _column_scale(reader, codes))
    return found


def digest(values: Array) -> bytes:
    """What tells an array from others: a hash of its shape, its type and its values."""
    start = f"{values.shape} {values.dtype}".encode()
    return hashlib.sha256(start + np.ascontiguousarray(values).tobytes()).digest()


def _is_matrix(node: Any) -> bool:
    return bool(
        node.get_type_name() == "Constant"
        and node.get_element_type() == openvino().Type.f32
        and len(node.shape) == 2
        and node.data.size
    )


def holds(codes: Codes) -> bool:
    """Whether a graph's int8 weights can be these codes as they are."""
    by_row = tuple(codes.scale.shape) in ((), (len(codes.values), 1)) and _of_columns(codes) is not None
    return by_row and int(codes.values.abs().max()) <= LARGEST


def _of_columns(codes: Codes) -> float | None:
    """The scale that all columns share, 1 where they have none; None where they have several."""
    if codes.columns is None:
        return 1.0
    first = codes.columns.flatten()[:1]
    return float(first) if len(first) and bool((codes.columns == first).all()) else None


def _int8_weights(graph: Any, readers: Mapping[str, Codes]) -> list[tuple[Any, Codes, tuple[Any, Any]]]:
    """Each reader with its codes, its int8 constant and the scales of that."""
    found = []
    for reader in graph.get_ordered_ops():
        codes = readers.get(reader.get_friendly_name())
        if codes is None:
            continue
        for source in reader.input_values():
            constants = int8_constants(source.get_node())
            if constants is not None and tuple(constants[0].shape) == tuple(codes.values.shape):
                found.append((reader, codes, constants))
    return found


def int8_constants(node: Any) -> tuple[Any, Any] | None:
    """The int8 constant and the scales that an operation multiplies, if it does; seen through a Convert."""
    if node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    if node.get_type_name() != "Multiply":
        return None
    converted, scale = (source.get_node() for source in node.input_values())
    if converted.get_type_name() != "Convert" or scale.get_type_name() != "Constant":
        return None
    constant = converted.input_value(0).get_node()
    int8 = constant.get_type_name() == "Constant" and constant.get_element_type() == openvino().Type.i8
    return (constant, scale) if int8 else None


def _column_scale(reader: Any, codes: Codes) -> Array | None:
    """What SmoothQuant multiplies the other operand's columns with, `[1, …, columns]`, if it does."""
    node = reader.input_value(0).get_node()
    if node.get_type_name() == "FakeQuantize":
        node = node.input_value(0).get_node()
    if node.get_type_name() != "Multiply" or "smooth_quant" not in node.get_friendly_name():
        return None
    scale = node.input_value(1).get_node()
    fits = scale.get_type_name() == "Constant" and scale.data.size == codes.values.shape[1]
    return np.array(scale.data) if fits else None


def _source(reader: Any, constant: Any) -> Any:
    """The output that an operation reads, and that restores int8 weights."""
    return next(
        source for source in reader.input_values() if (int8_constants(source.get_node()) or (None,))[0] == constant
    )


def restored(codes: Codes, before: Any) -> Any:
    """The operation that restores codes in float32, under the name of that which it replaces."""
    opset = openvino().opset13
    shared = _of_columns(codes)
    assert shared is not None, "a graph's weights have no scales for columns"
    rows = codes.scale.float() * shared
    scale = np.ascontiguousarray(rows.expand(len(codes.values), 1).numpy())
    converted = opset.convert(opset.constant(codes.values.to(torch.int8).numpy()), "f32")
    restored = opset.multiply(converted, opset.constant(scale))
    restored.set_friendly_name(before.get_friendly_name())
    return restored
