"""A graph run by ONNX Runtime on the CPU."""

import importlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from optimizer.engines.runnable import Array, Arrays, Runnable
from optimizer.errors import ArtifactError, first_line

_QUIET = 4  # what fails is raised, and is not to be printed as well


class OnnxRunnable(Runnable):
    """A session of `threads` threads for small batches, and `streams` parts of larger ones in threads of their own."""

    def __init__(self, graph: Path, config: Any, threads: int, streams: int | None = None) -> None:
        self._ort = importlib.import_module("onnxruntime")
        self._graph, self._threads = graph, threads
        self._whole = self._session(threads)
        outputs = [one.name for one in self._whole.get_outputs()]
        super().__init__(config, [one.name for one in self._whole.get_inputs()], outputs, streams or threads)
        self._single: Any = None

    def run(self, parts: Sequence[Arrays]) -> list[list[Array]]:
        """The outputs of each part, each part in a thread of its own."""
        if len(parts) == 1:
            return [self._whole.run(None, dict(parts[0]))]
        if self._single is None:
            self._single = self._session(max(1, self._threads // self.parts))
        with ThreadPoolExecutor(len(parts)) as pool:
            return list(pool.map(lambda part: self._single.run(None, dict(part)), parts))

    def _session(self, threads: int) -> Any:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _QUIET
        options.graph_optimization_level = self._ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        # Threads that spin while they wait take the core of a neighbour that computes.
        options.add_session_config_entry("session.intra_op.allow_spinning", "1" if threads > 1 else "0")
        try:
            return self._ort.InferenceSession(str(self._graph), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has a type of its own for each fault
            raise ArtifactError(f"{self._graph}: not a graph that onnxruntime reads: {first_line(error)}") from None
