"""What `benchmark_speed` times: a model as other tools' own documents make it fast, and as this program does."""

import copy
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import optimizer
from optimizer.artifact.write import write
from optimizer.engines import onnx, openvino
from optimizer.engines.packages import core, nncf, quiet
from optimizer.engines.reduce import Exported
from optimizer.engines.runnable import Runnable
from optimizer.formats.format import Calibrated
from optimizer.loading import load
from optimizer.model.checkpoint import open_checkpoint
from optimizer.model.task import Task
from optimizer.recipe import parse
from optimizer.runs.calibrating import likeness

Inputs = dict[str, Tensor]
_TASK: Task = "sequence-classification"
_WEIGHTS = (".safetensors", ".bin", ".xml", ".packed", ".onnx")
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
    place = setting.place("openvino")
    openvino.save(graph, place)
    compiled = core().compile_model(graph, "CPU", {"PERFORMANCE_HINT": "LATENCY"})

    def ask(inputs: Inputs) -> Tensor:
        return torch.from_numpy(compiled({name: inputs[name].numpy() for name in exported.inputs})[0])

    return Candidate(ask, _bytes(place))


def ours_openvino(setting: Setting) -> Candidate:
    """`recipe=int8_openvino`."""
    return _made(setting, "int8_openvino")


def ours_packed(setting: Setting) -> Candidate:
    """`recipe=compact_int8` with steps of 0.25 standard deviations, those of `recipe=compact`."""
    return _made(setting, "compact_int8", "stages.embeddings.step=0.25", "stages.quantize.step=0.25")


def _made(setting: Setting, name: str, *changes: str) -> Candidate:
    """What a recipe makes of the model, as a run makes it."""
    recipe = parse(optimizer.compose(f"recipe={name}", f"model.path={setting.directory}", *changes))
    checkpoint = open_checkpoint(setting.directory)
    texts = [*setting.calibration[:_SUBSET]]
    known = Calibrated(lambda: texts, likeness(_TASK, setting.model.config), record={})
    place = setting.folder / name
    write(recipe.staged(checkpoint, name, lambda _: None), place, threads=setting.threads, calibration=known)
    return artifact(place)


def artifact(directory: Path) -> Candidate:
    """An artifact of any format."""
    model = load(directory)
    candidate = Candidate(_logits(model), _bytes(directory))
    return replace(candidate, tune=lambda inputs: model.tune(**inputs)) if isinstance(model, Runnable) else candidate


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


def _logits(model: Any) -> Callable[[Inputs], Tensor]:
    def ask(inputs: Inputs) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = model(**inputs).logits
        return logits.float()

    return ask


def _bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir() if path.suffix in _WEIGHTS)


def _parameter_bytes(model: Any) -> int:
    return sum(value.nbytes for value in model.state_dict().values())


def _example(exported: Exported) -> Inputs:
    return {name: torch.ones(2, 8, dtype=torch.long) for name in exported.inputs}
