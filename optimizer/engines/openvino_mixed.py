"""An int8 OpenVINO graph with some of its operations given back to float: float activations, 8-bit weights."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from optimizer.engines.engine_codes import LARGEST, holds, int8_constants, restored
from optimizer.engines.mixed_precision import Place, places
from optimizer.engines.packages import openvino
from optimizer.model.weight import Codes

# Operations that move numbers and compute none.
_MOVES = {
    "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Split", "VariadicSplit", "Slice", "StridedSlice", "Concat",
    "Gather", "Broadcast",
}  # fmt: skip
_MADE_OF = "__module.model.model."  # of the names of a traced model's operations


class Mixed:
    """An int8 graph, and the float graph that it was made of.

    What is given back has the weights of the float graph, SmoothQuant undone: codes of a stage as they are where int8
    holds them, else rounded to 8 bits a row, as `int8_weights` does. So neither a file nor a packed one grows.
    """

    def __init__(self, graph: Any, plain: Any, codes: Mapping[str, Codes]) -> None:
        self._graph, self._plain, self._codes = graph, _by_name(plain), codes
        self._rounded: dict[str, Codes] = {}

    def places(self) -> list[Place]:
        """What can be given back."""
        quantizers = [node for node in self._graph.get_ordered_ops() if _is_quantizer(node)]
        return places({node.get_friendly_name(): sorted(map(_title, _computing(node))) for node in quantizers})

    def given_back(self, chosen: Sequence[Place]) -> Any:
        """A graph of its own in which these places are computed in float."""
        graph = self._graph.clone()
        nodes = _by_name(graph)
        for name in (name for place in chosen for name in place.quantizers):
            for port in list(nodes[name].output(0).get_target_inputs()):
                if not self._unsmoothed(port, nodes):
                    port.replace_source_output(nodes[name].input_value(0))
        graph.validate_nodes_and_infer_types()
        return graph

    def _unsmoothed(self, port: Any, nodes: Mapping[str, Any]) -> bool:
        """Give an operation that reads weights the float graph's activations, weights and bias, if it is one."""
        reader = port.get_node()
        before = self._plain.get(reader.get_friendly_name())
        source = None if before is None else before.input_value(port.get_index())
        places_ = [place for place, value in enumerate(reader.input_values()) if int8_constants(value.get_node())]
        if before is None or source is None or len(places_) != 1 or source.get_node().get_friendly_name() not in nodes:
            return False
        weights = reader.input_value(places_[0]).get_node()
        codes = self._weights(before, places_[0], weights)
        if codes is None:
            return False
        port.replace_source_output(nodes[source.get_node().get_friendly_name()].output(source.get_index()))
        reader.input(places_[0]).replace_source_output(restored(codes, weights).output(0))
        self._with_its_bias(reader)
        return True

    def _weights(self, before: Any, place: int, weights: Any) -> Codes | None:
        """The float graph's weights in 8 bits; None for those that have not one scale a row."""
        name = before.get_friendly_name()
        matrix, found = before.input_value(place).get_node(), int8_constants(weights)
        assert found is not None
        constant, scale = found
        if matrix.get_type_name() != "Constant" or tuple(scale.shape) != (constant.shape[0], 1):
            return None
        if name in self._codes and holds(self._codes[name]):
            return self._codes[name]
        if name not in self._rounded:
            self._rounded[name] = _rounded(torch.from_numpy(np.array(matrix.data)))
        return self._rounded[name]

    def _with_its_bias(self, reader: Any) -> None:
        """Undo what NNCF corrected the bias by."""
        for port in reader.output(0).get_target_inputs():
            before = self._plain.get(port.get_node().get_friendly_name())
            if before is None or port.get_node().get_type_name() != "Add":
                continue
            place = 1 - port.get_index()
            bias, own = before.input_value(place).get_node(), port.get_node().input_value(place).get_node()
            if bias.get_type_name() == own.get_type_name() == "Constant":
                constant = openvino().opset13.constant(np.array(bias.data))
                constant.set_friendly_name(own.get_friendly_name())
                port.get_node().input(place).replace_source_output(constant.output(0))


def _rounded(matrix: torch.Tensor) -> Codes:
    scale = matrix.abs().amax(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny) / LARGEST
    return Codes((matrix / scale).round().to(torch.int8), scale, torch.float32)


def _by_name(graph: Any) -> dict[str, Any]:
    return {node.get_friendly_name(): node for node in graph.get_ordered_ops()}


def _is_quantizer(node: Any) -> bool:
    return bool(node.get_type_name() == "FakeQuantize" and node.input_value(0).get_node().get_type_name() != "Constant")


def _computing(node: Any) -> list[Any]:
    """The operations that compute with what a node gives, however it is moved on the way to them."""
    readers = [port.get_node() for output in node.outputs() for port in output.get_target_inputs()]
    return [one for reader in readers for one in (_computing(reader) if reader.get_type_name() in _MOVES else [reader])]


def _title(node: Any) -> str:
    """An operation's name as the model has it, part of what `exclude` is matched with."""
    return str(node.get_friendly_name()).removeprefix(_MADE_OF).partition("/aten::linear")[0]
