"""What `benchmark_speed` times: a model as other tools' own documents make it fast, and as this program does."""

import copy
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from optimizer.engines import onnx, openvino
from optimizer.engines.engine_codes import coded_readers, hand_codes_to_engine, origins
from optimizer.engines.nncf import core, nncf, quiet
from optimizer.engines.openvino_runnable import OpenVINORunnable, read
from optimizer.engines.packed_graph import pack_graph, read_packed
from optimizer.engines.reduce import Exported, reduce
from optimizer.engines.runnable import Runnable
from optimizer.formats import load
from optimizer.model.task import Task
from optimizer.model.weight import Codes
from optimizer.stages.quantize import quantize

Inputs = dict[str, Tensor]
_TASK: Task = "sequence-classification"
_WEIGHTS = (".safetensors", ".bin", ".xml", ".packed", ".onnx")
_STEP = 0.25  # standard deviations, as in recipe=compact
_SUBSET = 300  # texts to calibrate on; NNCF's default


@dataclass(frozen=True)
class Setting:
    """A float32 classifier in `directory`, texts to calibrate on `[1, length]`, a folder for files, and the threads."""

    model: Any
    directory: Path
    calibration: Sequence[Inputs]
    folder: Path
    threads: int

    @property
    def exported(self) -> Exported:
        """The model as exporters want it, nothing left out."""
        return Exported(self.model, _TASK)

    def place(self, name: str) -> Path:
        """An empty folder for files."""
        place = self.folder / name
        place.mkdir()
        return place


@dataclass(frozen=True)
class Candidate:
    """One way to run a model: `ask` gives the logits `[batch, classes]`; `size` is in bytes.

    `tune` chooses how to run inputs of this shape, where there is a choice.
    """

    ask: Callable[[Inputs], Tensor]
    size: int
    tune: Callable[[Inputs], object] = lambda _: None


def torch_float32(setting: Setting) -> Candidate:
    """The model as `from_pretrained` loads it."""
    return Candidate(_logits(setting.model), _parameter_bytes(setting.model))


def torch_bfloat16(setting: Setting) -> Candidate:
    """`dtype=torch.bfloat16`."""
    model = copy.deepcopy(setting.model).to(torch.bfloat16)
    return Candidate(_logits(model), _parameter_bytes(model))


def bitsandbytes_int8(setting: Setting) -> Candidate:
    """`BitsAndBytesConfig(load_in_8bit=True)`."""
    from transformers import AutoModelForSequenceClassification, BitsAndBytesConfig

    config = BitsAndBytesConfig(load_in_8bit=True)
    model = AutoModelForSequenceClassification.from_pretrained(setting.directory, quantization_config=config).eval()
    return Candidate(_logits(model), model.get_memory_footprint())


def torchao_int8(setting: Setting) -> Candidate:
    """`quantize_(model, Int8DynamicActivationInt8WeightConfig())`, then `torch.compile`."""
    package = importlib.import_module("torchao.quantization")
    model = copy.deepcopy(setting.model)
    package.quantize_(model, package.Int8DynamicActivationInt8WeightConfig())
    place = setting.place("torchao") / "model.pt"
    torch.save(model.state_dict(), place)
    compiled = torch.compile(model, dynamic=True)
    return Candidate(_logits(compiled), place.stat().st_size)


def onnxruntime_dynamic_int8(setting: Setting) -> Candidate:
    """`quantize_dynamic(model.onnx, …)` with its defaults, an InferenceSession with its own."""
    ort = importlib.import_module("onnxruntime")
    quantization = importlib.import_module("onnxruntime.quantization")
    folder = setting.place("onnxruntime")
    exported = setting.exported
    onnx.convert(exported, _example(exported), folder / "model.onnx")
    with quiet():
        quantization.quantize_dynamic(folder / "model.onnx", folder / "int8.onnx")
    session = ort.InferenceSession(folder / "int8.onnx", providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]

    def ask(inputs: Inputs) -> Tensor:
        return torch.from_numpy(session.run(None, {name: inputs[name].numpy() for name in names})[0])

    return Candidate(ask, (folder / "int8.onnx").stat().st_size)


def openvino_nncf_int8(setting: Setting) -> Candidate:
    """`nncf.quantize(…, model_type=TRANSFORMER)` with its defaults, compiled with the hint for latency."""
    package = nncf()
    exported = setting.exported
    graph = openvino.convert(exported, _example(exported))
    items = [{name: text[name].numpy() for name in exported.inputs} for text in setting.calibration[:_SUBSET]]
    with quiet():
        graph = package.quantize(graph, package.Dataset(items), model_type=package.ModelType.TRANSFORMER)
    size = _saved(graph, setting.place("openvino"))
    compiled = core().compile_model(graph, "CPU", {"PERFORMANCE_HINT": "LATENCY"})

    def ask(inputs: Inputs) -> Tensor:
        return torch.from_numpy(compiled({name: inputs[name].numpy() for name in exported.inputs})[0])

    return Candidate(ask, size)


def ours_openvino(setting: Setting) -> Candidate:
    """`format=openvino`: the work left out that no answer needs, int8, streams that share a batch."""
    exported = reduce(setting.model, _TASK, lambda _: None)
    graph = openvino.convert(exported, _example(exported))
    graph = openvino.quantize(graph, "int8", setting.calibration[:_SUBSET])
    place = setting.place("ours")
    size = _saved(graph, place)
    return _tuned(OpenVINORunnable(read(place), setting.model.config, setting.threads), size)


def ours_packed(setting: Setting) -> Candidate:
    """`format=packed_openvino` after steps of 0.25 standard deviations: the same graph from entropy-coded codes."""
    model = copy.deepcopy(setting.model)
    exported = reduce(_quantized(model, codes := list[Codes]()), _TASK, lambda _: None)
    graph = openvino.convert(exported, _example(exported))
    readers = coded_readers(graph, codes)
    graph = openvino.quantize(graph, "int8", setting.calibration[:_SUBSET])
    hand_codes_to_engine(graph, readers)
    known = origins(graph, readers)
    place = setting.place("packed")
    _saved(graph, place)
    files = [(place / name).read_bytes() for name in (openvino.GRAPH, openvino.CONSTANTS)]
    packed = pack_graph(files[0], files[1], known, setting.threads)
    runnable = OpenVINORunnable(read_packed(packed, setting.threads), model.config, setting.threads)
    return _tuned(runnable, len(packed))


def artifact(directory: Path) -> Candidate:
    """An artifact of any format."""
    model = load(directory)
    weights = [
        path for path in directory.iterdir() if path.suffix in (".safetensors", ".bin", ".xml", ".packed", ".onnx")
    ]
    size = sum(path.stat().st_size for path in weights)
    return _tuned(model, size) if isinstance(model, Runnable) else Candidate(_logits(model), size)


PEERS: dict[str, Callable[[Setting], Candidate]] = {
    "torch, float32": torch_float32,
    "torch, bfloat16": torch_bfloat16,
    "bitsandbytes, int8": bitsandbytes_int8,
    "torchao, int8 dynamic, compiled": torchao_int8,
    "ONNX Runtime, int8 dynamic": onnxruntime_dynamic_int8,
    "OpenVINO + NNCF, int8": openvino_nncf_int8,
}
OURS: dict[str, Callable[[Setting], Candidate]] = {
    "**ours, openvino int8**": ours_openvino,
    "**ours, packed_openvino int8**": ours_packed,
}


def _tuned(model: Runnable, size: int) -> Candidate:
    return Candidate(_logits(model), size, lambda inputs: model.tune(**inputs))


def _logits(model: Any) -> Callable[[Inputs], Tensor]:
    def ask(inputs: Inputs) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = model(**inputs).logits
        return logits.float()

    return ask


def _parameter_bytes(model: Any) -> int:
    return sum(value.nbytes for value in model.state_dict().values())


def _example(exported: Exported) -> Inputs:
    return {name: torch.ones(2, 8, dtype=torch.long) for name in exported.inputs}


def _saved(graph: Any, directory: Path) -> int:
    openvino.save(graph, directory)
    return sum((directory / name).stat().st_size for name in (openvino.GRAPH, openvino.CONSTANTS))


def _quantized(model: Any, codes: list[Codes]) -> Any:
    """The model with its matrices as codes, which are added to `codes`."""
    for parameter in model.parameters():
        if parameter.ndim == 2:
            step = (parameter.data.double().std(correction=0) * _STEP).float()
            codes.append(quantize(parameter.data, step, 0.0, torch.float32))
            parameter.data.copy_(codes[-1].restore())
    return model
