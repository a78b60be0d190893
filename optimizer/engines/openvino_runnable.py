"""A graph run by OpenVINO on the CPU."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from optimizer.engines.contest import is_faster
from optimizer.engines.openvino import CONSTANTS, GRAPH
from optimizer.engines.packages import core
from optimizer.engines.runnable import Array, Arrays, Runnable, cut
from optimizer.errors import ArtifactError

_STATIC_GRAPHS = 4
"""Each packs its weights anew: 70 to 105 MB for 23 MB of int8 files."""

_KIND = "INFERENCE_PRECISION_HINT"
ARITHMETIC = {"auto": None, "float32": "f32", "bfloat16": "bf16"}
"""What OpenVINO is told for the `compute` of a recipe's engine; None: what it chooses."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Way:
    """So many streams share a batch, by the graph of any shape, or by one whose inputs are `shape`, [rows, length].

    `kind` is what floats are computed in, None for what the graph or the engine says.
    """

    streams: int
    shape: Shape | None = None
    kind: str | None = None


class OpenVINORunnable(Runnable):
    """A compiled graph of one stream for small batches, and of `streams` streams that share larger ones.

    Two streams of one thread each wait for each other once a batch, two threads of one stream in every operation. Which
    is faster for a shape of batch, and whether a graph compiled for that shape alone is, depends on the machine: `tune`
    tries it. Threads that call at once wait for each other.
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
        super().__init__(config, names, [port.any_name for port in graph.outputs], streams or threads)
        # Threads bound to cores wait for whatever else the system runs there.
        self._options: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False}
        if cache_dir is not None:
            self._options["CACHE_DIR"] = str(cache_dir)
        chosen = inference_precision or inference_type(graph)
        if chosen:
            self._options[_KIND] = chosen
        self._engine_chooses = chosen is None
        self._graph, self._threads = graph, threads
        self._streams_given = streams is not None
        self._requests = dict[Way, list[Any]]()  # the one used last at the end
        self._chosen = dict[Shape, int]()  # streams
        self._kinds = dict[tuple[Shape, ...], str | None]()  # by the shapes of all parts
        self._lock = threading.Lock()

    def forward(self, **inputs: Any) -> Any:
        """The same as calling it; the outputs of a request are its own until it is asked again."""
        with self._lock:
            return super().forward(**inputs)

    def tune(self, **inputs: Any) -> str:
        """Try one stream or as many as threads (unless `streams` was given), and a graph of this shape alone for each.

        Where the engine has chosen bfloat16 for what an int8 graph leaves in float, float32 is tried too.
        What is clearly fastest serves batches of this shape from then on. The four static graphs used last are kept;
        a part of another shape goes by the graph of any shape. While it lasts it holds up to three compiled graphs.
        """
        with self._lock:
            tensors = self._complete(inputs)
            self._try(tensors)
            return self._described(self._way(self._cut(tensors, self.streams(tensors))))

    def streams(self, tensors: Arrays) -> int:
        """As many as `tune` has chosen for batches of this shape."""
        return self._chosen.get(self._shape(tensors)) or super().streams(tensors)

    def run(self, parts: Sequence[Arrays]) -> list[list[Array]]:
        """The outputs of each part, each part in a stream of its own."""
        return self._run(self._way(parts), parts)

    def _run(self, way: Way, parts: Sequence[Arrays]) -> list[list[Array]]:
        requests = self._ready(way)[: len(parts)]
        for request, part in zip(requests, parts, strict=True):
            request.start_async(dict(part), share_inputs=True)
        for request in requests:
            request.wait()
        return [[tensor.data for tensor in request.output_tensors] for request in requests]

    def _ready(self, way: Way) -> list[Any]:
        """As many requests as streams, compiled when they are first asked for."""
        requests = self._requests.pop(way, None)
        if requests is None:
            graph = self._graph
            if way.shape:
                graph = graph.clone()
                graph.reshape({name: list(way.shape) for name in self.inputs})
            options = self._options | {"NUM_STREAMS": way.streams} | ({_KIND: way.kind} if way.kind else {})
            compiled = core().compile_model(graph, "CPU", options)
            requests = [compiled.create_infer_request() for _ in range(way.streams)]
        self._requests[way] = requests
        return requests

    def _try(self, tensors: Arrays) -> None:
        """Find the fastest way for batches of this shape; what was compiled for the others is let go."""
        ways, there = self._ways(tensors), set(self._requests)
        best, *others = ways
        for way in others:
            best = self._better(way, best, ways, there)
        if self._engine_chooses and self._kind(best) == "bf16":
            exact = replace(best, kind="f32")
            ways[exact] = ways[best]
            best = self._better(exact, best, ways, there)
        self._chosen[self._shape(tensors)] = best.streams
        self._kinds[self._shapes(ways[best])] = best.kind
        for way in [way for way in self._requests if way.shape][:-_STATIC_GRAPHS]:
            del self._requests[way]

    def _better(self, way: Way, best: Way, ways: Mapping[Way, list[Arrays]], there: set[Way]) -> Way:
        """The faster of two ways; the other one is let go, unless it was there before and takes any shape."""
        try:
            self._ready(way)
        except RuntimeError:  # a graph that has no such shape
            return best
        if is_faster(partial(self._run, way, ways[way]), partial(self._run, best, ways[best])):
            best, way = way, best
        if way.shape or way not in there:
            self._requests.pop(way, None)
        return best

    def _ways(self, tensors: Arrays) -> dict[Way, list[Arrays]]:
        """The ways to run a batch, each with the parts that it falls into; first the usual one."""
        usual = super().streams(tensors)
        dynamic: dict[Way, list[Arrays]] = {}
        for streams in (usual,) if self._streams_given else (usual, 1, self.parts):
            parts = self._cut(tensors, streams)
            dynamic.setdefault(self._dynamic(parts), parts)
        static = {replace(way, shape=shape): parts for way, parts in dynamic.items() if (shape := _shape_of_all(parts))}
        return dynamic | static

    def _way(self, parts: Sequence[Arrays]) -> Way:
        """That of parts in streams of their own: by a static graph, if there is one for just these."""
        way = replace(self._dynamic(parts), kind=self._kinds.get(self._shapes(parts)))
        static = replace(way, shape=_shape_of_all(parts))
        return static if static in self._requests else way

    def _dynamic(self, parts: Sequence[Arrays]) -> Way:
        return Way(1 if len(parts) == 1 else self.parts)

    def _shapes(self, parts: Sequence[Arrays]) -> tuple[Shape, ...]:
        return tuple(part[self.inputs[0]].shape for part in parts)

    def _kind(self, way: Way) -> str:
        """The type that floats are computed in."""
        compiled = self._ready(way)[0].get_compiled_model()
        return str(compiled.get_property(_KIND).get_type_name())

    def _cut(self, tensors: Arrays, streams: int) -> list[Arrays]:
        return [cut(tensors, part) for part in self.shared_by(tensors, streams)]

    def _shape(self, tensors: Arrays) -> Shape:
        """Rows of a batch, and the longest of them without its padding."""
        ((_, length),) = self.shared_by(tensors, 1)
        return len(tensors[self.inputs[0]]), length

    def _described(self, way: Way) -> str:
        """Streams, threads, shape and the type that floats are computed in."""
        threads = max(1, self._threads // way.streams)
        shape = "static " + "x".join(map(str, way.shape)) if way.shape else "dynamic"
        return f"{_counted(way.streams, 'stream')} of {_counted(threads, 'thread')}, {shape}, {self._kind(way)}"


def _shape_of_all(parts: Sequence[Arrays]) -> Shape | None:
    """The shape that every input of every part has, if it is one."""
    shapes = {value.shape for part in parts for value in part.values()}
    return shapes.pop() if len(shapes) == 1 else None


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def read(directory: Path) -> Any:
    """The graph that `save` has written to `directory`; ArtifactError if there is none, or it is damaged."""
    try:
        return core().read_model(directory / GRAPH, directory / CONSTANTS)
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
