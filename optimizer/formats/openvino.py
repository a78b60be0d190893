"""The openvino format: the files that OpenVINO, optimum-intel and sentence-transformers look for."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from optimizer.engines import openvino
from optimizer.engines.engine_codes import coded_readers, hand_codes_to_engine, narrowed_codes
from optimizer.engines.mixed_precision import Answers, fewest_given_back
from optimizer.engines.openvino_mixed import Mixed
from optimizer.engines.openvino_runnable import ARITHMETIC, OpenVINORunnable, read
from optimizer.engines.reduce import Exported
from optimizer.formats.engine import Engine, EngineSettings, calibration, check_graph, example, staged_codes
from optimizer.formats.format import Context
from optimizer.model.weight import Codes
from optimizer.processes.cores import cores
from optimizer.settings import Settings
from optimizer.stages.staging import Staged


class OpenVINOSettings(EngineSettings):
    """`precision` of the graph; `int8` is calibrated. `exclude` are patterns of the operations that stay in float.

    `reduce` leaves out the work that answers do not need, where that changes none. `agreement` is the share of the
    calibration texts that an int8 graph has to answer as the float graph does: as many operations are in float again.
    `compute` is the arithmetic of what is not in 8 bits, when `optimizer.load` runs it: `auto` is bfloat16 where the
    processor multiplies it natively.
    """

    precision: openvino.Precision = "int8"
    compute: Literal["auto", "float32", "bfloat16"] = "auto"


class OpenVINO(Engine):
    """A graph as openvino_model.xml and .bin; integer codes of a stage become its int8 weights as they are."""

    name = "openvino"
    packages: tuple[str, ...] = ("openvino", "nncf")
    extra: str | None = "openvino"
    how_to_load = (
        "The format is `openvino`: `optimizer.load` runs it, or whatever reads `openvino_model.xml`: OpenVINO itself,\n"
        'optimum-intel (`OVModelFor….from_pretrained`), sentence-transformers (`backend="openvino"`).'
    )
    settings: type[Settings] | None = OpenVINOSettings
    files: ClassVar[tuple[str, ...]] = (openvino.GRAPH, openvino.CONSTANTS)

    def write_graph(self, module: Exported, staged: Staged, directory: Path, context: Context) -> None:
        """Equal graphs give equal bytes."""
        graph, _ = made(module, staged, context)
        openvino.save(graph, directory)

    def graph(self, directory: Path, threads: int) -> Any:
        """The graph in a directory."""
        return read(directory)

    def matrices(self, directory: Path) -> Iterator[torch.Tensor]:
        """Of the graph's constants."""
        return constants(self.graph(directory, cores()))


def made(module: Exported, staged: Staged, context: Context) -> tuple[Any, dict[str, Codes]]:
    """The graph of a module in the precision asked for, and the operations that read matrices of codes, with them."""
    settings = context.settings
    assert isinstance(settings, EngineSettings)
    graph = openvino.convert(module, example(module))
    config = module.model.config
    check_graph(OpenVINORunnable(graph, config, context.threads, 1, inference_precision="f32"), module, "openvino")
    plain = None if settings.agreement is None else graph.clone()
    readers = coded_readers(graph, narrowed_codes(staged_codes(staged), module.selections))
    texts = calibration(context)
    graph = openvino.quantize(graph, settings.precision, texts, settings.exclude)  # type: ignore[arg-type]
    if readers:
        count = hand_codes_to_engine(graph, readers)
        context.log(f"{count} of {len(readers)} matrices of codes are the graph's int8 weights as they are")
    if plain is not None:
        graph = _mixed(Mixed(graph, plain, readers), plain, config, texts, context)
    return graph, readers


def _mixed(mixed: Mixed, plain: Any, config: Any, texts: list[dict[str, torch.Tensor]], context: Context) -> Any:
    """The int8 graph with as much in float as the agreement asked for takes, run as the artifact will be."""
    settings = context.settings
    assert isinstance(settings, OpenVINOSettings)
    assert settings.agreement is not None
    assert context.calibration is not None

    def run(graph: Any, precision: str | None = ARITHMETIC[settings.compute]) -> OpenVINORunnable:
        return OpenVINORunnable(graph, config, context.threads, streams=1, inference_precision=precision)

    return fewest_given_back(
        mixed.places(),
        mixed.given_back,
        run,
        Answers(texts, context.calibration.likeness, run(plain, "f32")),
        settings.agreement,
        context.log,
    )


def constants(graph: Any) -> Iterator[torch.Tensor]:
    """The matrices among a graph's constants."""
    for node in graph.get_ordered_ops():
        if node.get_type_name() == "Constant" and sum(length > 1 for length in node.shape) > 1:
            yield torch.from_numpy(node.data.copy())
