"""A model as an OpenVINO graph: converted, quantized, written.

NNCF's post-training quantization: https://github.com/openvinotoolkit/nncf. Its SmoothQuant: Xiao et al. (2023).
"""

import importlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from optimizer.engines.graph_inputs import cannot_convert, flat
from optimizer.engines.packages import nncf, openvino, quiet
from optimizer.errors import ArtifactError, RecipeError
from optimizer.processes.processor import saturates

Precision = Literal["float32", "bfloat16", "int8", "int8_weights", "int4_weights"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
GRAPH = "openvino_model.xml"
CONSTANTS = "openvino_model.bin"
"""The names that optimum-intel looks for."""

_NUMBER = re.compile(r"_\d+")  # of a name that a counter of the process made
_GROUP = 128  # of weights that share an int4 scale; NNCF's default, its recommendation for small models is 64 or 32


def convert(model: nn.Module, example_inputs: Mapping[str, Tensor]) -> Any:
    """The graph (`openvino.Model`) of a model in float32, of any batch size and length.

    `example_inputs` name the graph's inputs, each `[batch, length]` with batch and length above 1; the outputs keep
    transformers' names. Raises ArtifactError for a model that cannot be traced.
    """
    ov = openvino()
    wrapped = flat(model, example_inputs)
    shapes = [ov.PartialShape([-1] * value.ndim) for value in example_inputs.values()]
    try:
        # Tracing warns of each Python value that becomes a constant, and that torch wants to be rid of tracing.
        with quiet(), torch.no_grad():
            graph = ov.convert_model(wrapped, example_input=tuple(example_inputs.values()), input=shapes)
    except Exception as error:  # whatever the frontend meets
        raise ArtifactError(cannot_convert("openvino", model, error)) from None
    for port, name in zip(graph.inputs, wrapped.inputs, strict=True):
        port.get_tensor().set_names({name})
        port.get_node().set_friendly_name(name)
    for port, name in zip(graph.outputs, wrapped.outputs, strict=True):
        port.get_tensor().set_names({name})
    graph.validate_nodes_and_infer_types()
    return graph


def quantize(
    graph: Any,
    precision: Precision,
    calibration: Sequence[Mapping[str, Tensor]] = (),
    exclude: Sequence[str] = (),
    smooth: float | None = 0.75,
) -> Any:
    """The graph in another precision; `graph` may be changed and must not be used any more.

    `calibration` are the tokens of one text each, `[1, length]` at its own length, which `int8` needs; `exclude`
    are regular expressions for names of operations that stay in float. `smooth` is SmoothQuant's alpha, from 0 (all
    difficulty stays in the activations) to 1, None for none.
    """
    match precision:
        case "float32":
            return graph
        case "bfloat16":
            return _with_bfloat16_constants(graph)
        case "int8":
            return _with_int8_activations(graph, calibration, exclude, smooth)
        case "int8_weights":
            return _compressed(graph, exclude, mode=nncf().CompressWeightsMode.INT8_SYM)
        case "int4_weights":
            mode = nncf().CompressWeightsMode.INT4_SYM
            fallback = nncf().GroupSizeFallbackMode.ADJUST
            advanced = nncf().AdvancedCompressionParameters(group_size_fallback_mode=fallback)
            return _compressed(graph, exclude, mode=mode, group_size=_GROUP, advanced_parameters=advanced)


def save(graph: Any, directory: Path) -> None:
    """Write the graph under the names that optimum-intel looks for; equal graphs give equal bytes."""
    ov = openvino()
    named(graph)
    # The runtime's own fold to float16 would change constants that nobody asked it to change.
    ov.save_model(graph, directory / GRAPH, compress_to_fp16=False)


def named(graph: Any) -> None:
    """Take what differs from process to process out of a graph: numbers in names, notes of how it was made."""
    for place, node in enumerate(graph.get_ordered_ops()):
        if node.get_type_name() != "Parameter":
            node.set_friendly_name(f"{_NUMBER.sub('', node.get_friendly_name())}_{place}")
    graph.set_friendly_name("model")
    for key in list(graph.get_rt_info()):
        del graph.get_rt_info()[key]


def _with_int8_activations(
    graph: Any, calibration: Sequence[Mapping[str, Tensor]], exclude: Sequence[str], smooth: float | None
) -> Any:
    if not calibration:
        raise RecipeError("precision: int8 needs calibration texts; write data.calibration=FILE")
    package = nncf()
    names = [port.any_name for port in graph.inputs]
    items = [{name: np.ascontiguousarray(item[name].numpy()) for name in names} for item in calibration]
    parameters = importlib.import_module("nncf.quantization.advanced_parameters")
    alpha = parameters.AdvancedSmoothQuantParameters(matmul=-1 if smooth is None else smooth)
    overflow = package.OverflowFix.ENABLE if saturates() else package.OverflowFix.DISABLE
    with quiet():
        return package.quantize(
            graph,
            package.Dataset(items),
            subset_size=len(items),
            model_type=package.ModelType.TRANSFORMER,
            ignored_scope=_ignored(graph, exclude),
            advanced_parameters=package.AdvancedQuantizationParameters(
                smooth_quant_alphas=alpha, overflow_fix=overflow
            ),
        )


def _compressed(graph: Any, exclude: Sequence[str], **options: Any) -> Any:
    with quiet():
        return nncf().compress_weights(graph, ignored_scope=_ignored(graph, exclude), **options)


def _ignored(graph: Any, exclude: Sequence[str]) -> Any:
    names = [node.get_friendly_name() for node in graph.get_ordered_ops()]
    found = {pattern: [name for name in names if re.search(pattern, name)] for pattern in exclude}
    for pattern, matches in found.items():
        if not matches:
            raise RecipeError(f"exclude: '{pattern}' matches no operation of the graph; write part of a module's name")
    ignored = sorted({name for matches in found.values() for name in matches})
    return nncf().IgnoredScope(names=ignored, validate=False)


def _with_bfloat16_constants(graph: Any) -> Any:
    """Every float32 matrix stored in bfloat16, converted where it is read."""
    ov = openvino()
    for node in graph.get_ordered_ops():
        if node.get_type_name() != "Constant" or node.get_element_type() != ov.Type.f32 or len(node.shape) < 2:
            continue
        converted = ov.opset13.convert(ov.opset13.constant(node.data, ov.Type.bf16), "f32")
        converted.set_friendly_name(node.get_friendly_name())
        converted.get_rt_info()["decompression"] = ""
        for reader in list(node.output(0).get_target_inputs()):
            reader.replace_source_output(converted.output(0))
    return graph
