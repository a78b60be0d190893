"""A graph run by OpenVINO on the CPU."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optimizer.engines.nncf import openvino
from optimizer.engines.openvino import CONSTANTS, GRAPH
from optimizer.engines.runnable import Array, Arrays, Runnable
from optimizer.errors import ArtifactError


class OpenVINORunnable(Runnable):
    """A compiled graph of one stream for small batches, and of `streams` streams that share larger ones.

    Two streams of one thread each wait for each other once a batch, two threads of one stream in every operation.
    """

    def __init__(
        self,
        graph: Any,
        config: Any,
        threads: int,
        streams: int | None = None,
        cache_dir: Path | None = None,
        inference_precision: str | None = None,
    ) -> None:
        names = [port.any_name for port in graph.inputs]
        streams = threads if streams is None else streams
        super().__init__(config, names, [port.any_name for port in graph.outputs], streams)
        self._core = openvino().Core()
        if cache_dir is not None:
            self._core.set_property({"CACHE_DIR": str(cache_dir)})
        # Threads bound to cores wait for whatever else the system runs there.
        self._options: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False}
        if chosen := inference_precision or inference_type(graph):
            self._options["INFERENCE_PRECISION_HINT"] = chosen
        self._graph, self._requests = graph, dict[int, list[Any]]()

    def run(self, parts: Sequence[Arrays]) -> list[list[Array]]:
        """The outputs of each part, each part in a stream of its own."""
        requests = self._ready(1 if len(parts) == 1 else self.parts)[: len(parts)]
        for request, part in zip(requests, parts, strict=True):
            request.start_async(dict(part), share_inputs=True)
        for request in requests:
            request.wait()
        return [[tensor.data for tensor in request.output_tensors] for request in requests]

    def _ready(self, streams: int) -> list[Any]:
        """As many requests as streams, compiled when they are first asked for."""
        if streams not in self._requests:
            compiled = self._core.compile_model(self._graph, "CPU", self._options | {"NUM_STREAMS": streams})
            self._requests[streams] = [compiled.create_infer_request() for _ in range(streams)]
        return self._requests[streams]


def read(directory: Path) -> Any:
    """The graph that `save` has written to `directory`; ArtifactError if there is none, or it is damaged."""
    try:
        return openvino().Core().read_model(directory / GRAPH, directory / CONSTANTS)
    except RuntimeError as error:
        line = str(error).strip().splitlines()[-1]
        raise ArtifactError(f"{directory / GRAPH}: not a graph that openvino reads: {line}") from None


def inference_type(graph: Any) -> str | None:
    """The type that a graph's floats are computed in, by its constants; None: whatever this processor is fastest in.

    A float32 graph is computed in float32, one of bfloat16 in that. Beside int8, bfloat16 costs no answers: where the
    processor has it, it is 9 % faster.
    """
    types = {node.get_element_type().get_type_name() for node in graph.get_ops() if node.get_type_name() == "Constant"}
    return "bf16" if "bf16" in types else None if types & {"i8", "u8", "i4", "u4"} else "f32"
