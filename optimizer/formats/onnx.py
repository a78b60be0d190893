"""The onnx format: the file that ONNX Runtime, optimum-onnx and sentence-transformers look for."""

import importlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch

from optimizer.engines import onnx
from optimizer.engines.mixed_precision import Answers, fewest_given_back
from optimizer.engines.onnx_mixed import Mixed
from optimizer.engines.onnx_runnable import OnnxRunnable
from optimizer.engines.reduce import Exported
from optimizer.formats.engine import Engine, EngineSettings, calibration, check_graph, example
from optimizer.formats.format import Context
from optimizer.settings import Settings
from optimizer.stages.staging import Staged


class OnnxSettings(EngineSettings):
    """`precision` of the graph; `int8` is calibrated, `int8_dynamic` makes answers depend on their neighbours.

    `exclude` are patterns of the nodes that stay in float; `reduce` leaves out the work that answers do not need;
    `agreement` is the share of the calibration texts that an int8 graph has to answer as the float graph does.
    """

    precision: onnx.Precision = "int8"


class Onnx(Engine):
    """A graph as model.onnx."""

    name = "onnx"
    packages: tuple[str, ...] = ("onnx", "onnxruntime", "nncf")
    extra: str | None = "onnx"
    how_to_load = (
        "The format is `onnx`: `optimizer.load` runs it, or whatever reads `model.onnx`: ONNX Runtime itself,\n"
        'optimum-onnx (`ORTModelFor….from_pretrained`), sentence-transformers (`backend="onnx"`).'
    )
    settings: type[Settings] | None = OnnxSettings
    files: ClassVar[tuple[str, ...]] = (onnx.GRAPH,)

    def write_graph(self, module: Exported, staged: Staged, directory: Path, context: Context) -> None:
        """Codes of a stage are restored first: ONNX Runtime's int8 weights are rounded anew."""
        settings = context.settings
        assert isinstance(settings, OnnxSettings)
        with tempfile.TemporaryDirectory(dir=directory) as folder:
            plain = Path(folder) / onnx.GRAPH
            onnx.convert(module, example(module), plain)
            check_graph(OnnxRunnable(plain, module.model.config, context.threads, streams=1), module, self.name)
            texts = calibration(context)
            onnx.quantize(plain, directory / onnx.GRAPH, settings.precision, texts, settings.exclude)
            if settings.agreement is not None:
                _mix(plain, directory / onnx.GRAPH, module.model.config, texts, context)

    def matrices(self, directory: Path) -> Iterator[torch.Tensor]:
        """Of the graph's initializers."""
        graph = importlib.import_module("onnx").load(directory / onnx.GRAPH).graph
        to_array = importlib.import_module("onnx.numpy_helper").to_array
        for tensor in graph.initializer:
            if sum(length > 1 for length in tensor.dims) > 1:
                yield torch.from_numpy(to_array(tensor).copy())


def _mix(plain: Path, graph: Path, config: Any, texts: list[dict[str, torch.Tensor]], context: Context) -> None:
    """Give as much of the int8 graph at `graph` back to float as the agreement asked for takes."""
    settings, package = context.settings, importlib.import_module("onnx")
    assert isinstance(settings, OnnxSettings)
    assert settings.agreement is not None
    assert context.calibration is not None

    def run(model: Any) -> OnnxRunnable:
        tried = plain.with_name("tried.onnx")
        package.save(model, tried)
        return OnnxRunnable(tried, config, context.threads, streams=1)

    prepared = plain.with_name("prepared.onnx")
    onnx.prepare(plain, prepared)
    mixed = Mixed(package.load(graph), package.load(prepared))
    answers = Answers(texts, context.calibration.likeness, OnnxRunnable(plain, config, context.threads, streams=1))
    chosen = fewest_given_back(mixed.places(), mixed.given_back, run, answers, settings.agreement, context.log)
    package.save(chosen, graph)
