"""A model as an ONNX graph for ONNX Runtime: converted, quantized.

`int8` stores QuantizeLinear and DequantizeLinear with ranges from calibration texts, so an answer does not depend on
its neighbours; `int8_dynamic` takes one scale for a whole batch while it runs, so an answer does.
"""

import importlib
import re
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from optimizer.engines.graph_inputs import Flat, cannot_convert, flat
from optimizer.engines.packages import nncf as nncf_package
from optimizer.engines.packages import quiet
from optimizer.errors import ArtifactError, RecipeError
from optimizer.processes.processor import saturates

Precision = Literal["float32", "int8", "int8_dynamic"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
GRAPH = "model.onnx"
"""The name that optimum-onnx looks for."""

_OPSET = 17  # the first with LayerNormalization; ONNX Runtime knows it from 1.12 on


def convert(model: nn.Module, example_inputs: Mapping[str, Tensor], path: Path) -> None:
    """Write the graph of a model in float32, of any batch size and length, to `path`.

    `example_inputs` name the graph's inputs, each `[batch, length]` with batch and length above 1; the outputs keep
    transformers' names. Raises ArtifactError for a model that cannot be traced.
    """
    wrapped = flat(model, example_inputs)
    inputs = tuple(example_inputs.values())
    try:
        # Tracing warns of each Python value that becomes a constant, and that torch wants to be rid of this exporter;
        # the new one takes five times as long here and fails on DeBERTa.
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                wrapped,
                inputs,
                str(path),
                input_names=list(wrapped.inputs),
                output_names=list(wrapped.outputs),
                dynamic_axes=_free_axes(wrapped, inputs),
                opset_version=_OPSET,
                dynamo=False,
            )
    except Exception as error:  # whatever the exporter meets
        raise ArtifactError(cannot_convert("onnx", model, error)) from None


def quantize(
    source: Path,
    target: Path,
    precision: Precision,
    calibration: Sequence[Mapping[str, Tensor]] = (),
    exclude: Sequence[str] = (),
) -> None:
    """Write the graph at `source` in another precision to `target`.

    `calibration` are the tokens of one text each, `[1, length]`, which `int8` needs; `exclude` are regular expressions
    for names of nodes that stay in float.
    """
    if precision == "float32":
        shutil.copyfile(source, target)
        return
    excluded = _excluded(source, exclude)
    if precision == "int8" and not calibration:
        raise RecipeError("precision: int8 needs calibration texts; write data.calibration=FILE")
    with quiet(), tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / GRAPH
        prepare(source, prepared)
        if precision == "int8":
            _static(prepared, target, calibration, excluded)
        else:
            _dynamic(prepared, target, excluded)


def prepare(source: Path, target: Path) -> None:
    """Write the graph at `source` as quantizers read it: NNCF knows no constant but an initializer."""
    inference = importlib.import_module("onnxruntime.quantization.shape_inference")
    inference.quant_pre_process(source, target, skip_symbolic_shape=True)


def _static(source: Path, target: Path, calibration: Sequence[Mapping[str, Tensor]], excluded: list[str]) -> None:
    """By NNCF, because ONNX Runtime's own has no SmoothQuant: it leaves six times the error, and more texts change."""
    onnx = importlib.import_module("onnx")
    nncf = nncf_package()
    graph = onnx.load(source)
    names = [one.name for one in graph.graph.input]
    texts = [{name: np.ascontiguousarray(text[name].numpy()) for name in names} for text in calibration]
    overflow = nncf.OverflowFix.ENABLE if saturates() else nncf.OverflowFix.DISABLE
    quantized = nncf.quantize(
        graph,
        nncf.Dataset(texts),
        subset_size=len(texts),
        model_type=nncf.ModelType.TRANSFORMER,
        ignored_scope=nncf.IgnoredScope(names=[*excluded, *_stacks(graph)], validate=False),
        advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=overflow),
    )
    del quantized.metadata_props[:]  # what NNCF notes of its settings
    onnx.save(quantized, target)


def _dynamic(source: Path, target: Path, excluded: list[str]) -> None:
    ort = importlib.import_module("onnxruntime.quantization")
    ort.quantize_dynamic(
        source,
        target,
        per_channel=True,
        reduce_range=saturates(),
        weight_type=ort.QuantType.QInt8,
        nodes_to_exclude=excluded,
    )


def _stacks(graph: Any) -> list[str]:
    """Nodes that multiply by a constant stack of matrices (DeBERTa's positions): ONNX Runtime fails on its scales."""
    stacked = {tensor.name for tensor in graph.graph.initializer if len(tensor.dims) > 2}
    return [node.name for node in graph.graph.node if node.op_type == "MatMul" and stacked & {*node.input}]


def _free_axes(wrapped: Flat, inputs: tuple[Tensor, ...]) -> dict[str, dict[int, str]]:
    """The axes of inputs and outputs that are as large as a batch or its texts."""
    free = {name: {0: "batch", 1: "length"} for name in wrapped.inputs}
    with torch.no_grad():
        answers = wrapped(*inputs)
    for name, answer in zip(wrapped.outputs, answers, strict=True):
        tokenwise = answer.ndim == 3 or name in ("start_logits", "end_logits")
        free[name] = {0: "batch", 1: "length"} if tokenwise else {0: "batch"}
    return free


def _excluded(source: Path, exclude: Sequence[str]) -> list[str]:
    if not exclude:
        return []
    onnx = importlib.import_module("onnx")
    names = [node.name for node in onnx.load(source, load_external_data=False).graph.node]
    for pattern in exclude:
        if not any(re.search(pattern, name) for name in names):
            raise RecipeError(f"exclude: '{pattern}' matches no node of the graph; write part of a module's name")
    return [name for name in names if any(re.search(pattern, name) for pattern in exclude)]
