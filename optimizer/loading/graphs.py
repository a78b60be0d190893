"""Graphs, run by the engine that they are for."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import yaml  # type: ignore[import-untyped]

from optimizer.engines import openvino_runnable
from optimizer.engines.onnx_runnable import OnnxRunnable
from optimizer.engines.openvino_runnable import ARITHMETIC, OpenVINORunnable
from optimizer.engines.packed_graph import read_packed
from optimizer.engines.runnable import Runnable
from optimizer.errors import ArtifactError, EvaluationError, PackageError, install
from optimizer.packing.reader import PayloadError

ONNX = "model.onnx"
PACKED = "openvino_model.packed"


def openvino(directory: Path, **options: Any) -> Runnable:
    """Compiled when it is first asked; `threads` (torch's number), `streams` and `cache_dir` as for OpenVINORunnable.

    Raises EvaluationError for another `device` than the CPU.
    """
    return _of_openvino(directory, lambda threads: openvino_runnable.read(directory), options)


def packed_openvino(directory: Path, **options: Any) -> Runnable:
    """The same of one entropy-coded file, decoded in memory."""
    return _of_openvino(directory, lambda threads: read_packed_graph(directory, threads), options)


def onnx(directory: Path, **options: Any) -> Runnable:
    """A session of ONNX Runtime; `threads` (torch's number) and `streams` as for OnnxRunnable.

    Raises EvaluationError for another `device` than the CPU.
    """
    _require(directory, "onnxruntime", "onnx")
    config, threads, others = _settled(options, "onnx", directory)
    return _at(directory, OnnxRunnable(directory / ONNX, config, threads, **others))


def read_packed_graph(directory: Path, threads: int) -> Any:
    """The graph of a packed_openvino artifact, straight into memory; ArtifactError for a damaged file."""
    try:
        return read_packed((directory / PACKED).read_bytes(), threads)
    except (OSError, PayloadError) as error:
        raise ArtifactError(f"{directory / PACKED}: cannot be loaded: {error}") from None


def _of_openvino(directory: Path, read: Callable[[int], Any], options: dict[str, Any]) -> Runnable:
    _require(directory, "openvino", "openvino")
    config, threads, others = _settled(options, "openvino", directory)
    return _at(directory, OpenVINORunnable(read(threads), config, threads, **_computed_in(directory) | others))


def _require(directory: Path, package: str, extra: str) -> None:
    if find_spec(package) is None:
        raise PackageError(f"{directory}: needs the package {package} to run; run: {install(extra)}")


def _settled(options: dict[str, Any], engine: str, directory: Path) -> tuple[Any, int, dict[str, Any]]:
    """The configuration, the threads, and the options that are the engine's own."""
    places = {str(options.pop("device", "cpu")), *map(str, (options.pop("device_map", None) or {}).values())}
    if elsewhere := places - {"cpu"}:
        raise EvaluationError(f"device: {engine} runs on the CPU, not on {min(elsewhere)}; write device=cpu")
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(directory, trust_remote_code=False)
    return config, options.pop("threads", None) or torch.get_num_threads(), options


def _at(directory: Path, graph: Runnable) -> Runnable:
    graph.directory = directory
    return graph


def _computed_in(directory: Path) -> dict[str, str]:
    """What the recipe in a directory, if there is one, says of the arithmetic, as an option of OpenVINORunnable."""
    try:
        recipe = yaml.safe_load((directory / "recipe.yaml").read_text(encoding="utf-8"))
        chosen = ARITHMETIC[(recipe.get("engine") or {}).get("compute", "auto")]
    except (OSError, AttributeError, KeyError, yaml.YAMLError):  # somebody else's graph
        return {}
    return {"inference_precision": chosen} if chosen else {}
