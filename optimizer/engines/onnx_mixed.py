"""An int8 ONNX graph with some of its operations given back to float: what they read is what the float graph reads."""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from optimizer.engines.mixed_precision import Place, places

# Operations that move numbers and compute none.
_MOVES = {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Split", "Slice", "Concat", "Gather", "Expand", "Flatten"}
_MADE_OF = "/model/model/"  # of the names of an exported model's nodes
_FLOAT = "float/"  # before the names of the float graph's weights, which NNCF changes under their names


class Mixed:
    """An int8 graph (a ModelProto), and the float graph that it was made of.

    What is given back has the float graph's weights: those in 8 bits ONNX Runtime would restore at each call.
    """

    def __init__(self, graph: Any, plain: Any) -> None:
        self._graph = graph
        self._plain = {node.name: node for node in plain.graph.node}
        self._weights = {tensor.name: tensor for tensor in plain.graph.initializer}

    def places(self) -> list[Place]:
        """What can be given back."""
        readers = _readers(self._graph)
        return places(
            {
                name: [_title(one.name) for one in _computing(node, readers)]
                for name, node in _quantizers(self._graph, readers).items()
            }
        )

    def given_back(self, chosen: Sequence[Place]) -> Any:
        """A graph of its own in which these places are computed in float."""
        graph = importlib.import_module("onnx").ModelProto()
        graph.CopyFrom(self._graph)
        readers = _readers(graph)
        quantizers = _quantizers(graph, readers)
        for name in (name for place in chosen for name in place.quantizers):
            for reader in readers[quantizers[name].output[0]]:
                self._as_before(graph, reader, weights_alone=False)
                for one in (one for output in reader.output for one in readers.get(output, []) if one.op_type == "Add"):
                    self._as_before(graph, one, weights_alone=True)  # its bias, which NNCF has corrected
        _prune(graph.graph)
        return graph

    def _as_before(self, graph: Any, reader: Any, *, weights_alone: bool) -> None:
        """Let a node read what it reads in the float graph."""
        before = self._plain.get(reader.name)
        for place, name in enumerate(() if before is None else before.input):
            if name in self._weights:
                reader.input[place] = _FLOAT + name
                if all(tensor.name != _FLOAT + name for tensor in graph.graph.initializer):
                    tensor = graph.graph.initializer.add()
                    tensor.CopyFrom(self._weights[name])
                    tensor.name = _FLOAT + name
            elif not weights_alone:
                reader.input[place] = name


def _readers(graph: Any) -> dict[str, list[Any]]:
    """The nodes that read each value."""
    found: dict[str, list[Any]] = {}
    for node in graph.graph.node:
        for name in dict.fromkeys(node.input):
            found.setdefault(name, []).append(node)
    return found


def _quantizers(graph: Any, readers: Mapping[str, list[Any]]) -> dict[str, Any]:
    """By the name of each node that quantizes activations, that which gives them in float again; in their order."""
    return {
        node.name: after
        for node in graph.graph.node
        if node.op_type == "QuantizeLinear"
        for after in readers.get(node.output[0], [])
        if after.op_type == "DequantizeLinear"
    }


def _computing(node: Any, readers: Mapping[str, list[Any]]) -> list[Any]:
    """The nodes that compute with what a node gives, however it is moved on the way to them."""
    found = [one for output in node.output for one in readers.get(output, []) if one.op_type != "Shape"]
    return [one for reader in found for one in (_computing(reader, readers) if reader.op_type in _MOVES else [reader])]


def _prune(graph: Any) -> None:
    """Take out what nothing reads any more."""
    needed = {output.name for output in graph.output}
    for place in reversed(range(len(graph.node))):
        if needed & {name for name in graph.node[place].output if name}:
            needed |= set(graph.node[place].input)
        else:
            del graph.node[place]
    for place in reversed(range(len(graph.initializer))):
        if graph.initializer[place].name not in needed:
            del graph.initializer[place]


def _title(name: str) -> str:
    """A node's name as the model has it, part of what `exclude` is matched with."""
    return name.removeprefix(_MADE_OF).removesuffix("/MatMul").removesuffix("/Gemm")
