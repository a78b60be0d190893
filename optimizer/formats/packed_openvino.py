"""The packed_openvino format: the graph in one entropy-coded file, as small as packed, as fast as openvino."""

import tempfile
from pathlib import Path
from typing import Any, ClassVar

from optimizer.engines import openvino
from optimizer.engines.engine_codes import origins
from optimizer.engines.packed_graph import pack_graph, read_packed, unpack_graph
from optimizer.engines.reduce import Exported
from optimizer.errors import ArtifactError
from optimizer.formats.format import Context
from optimizer.formats.openvino import OpenVINO, made
from optimizer.manifest import Listed
from optimizer.packing.reader import PayloadError
from optimizer.processes.cores import cores
from optimizer.stages.staging import Staged

PACKED = "openvino_model.packed"


class PackedOpenVINO(OpenVINO):
    """A graph as openvino_model.packed, decoded in memory when it is loaded."""

    name = "packed_openvino"
    how_to_load = (
        "The format is `packed_openvino`: `optimizer.load` decodes and runs it.\n"
        "`python -m optimizer.unpack THIS_DIRECTORY OUT` writes the files that OpenVINO and optimum-intel read."
    )
    unpacks_to: str | None = "openvino"
    files: ClassVar[tuple[str, ...]] = (PACKED,)

    def write_graph(self, module: Exported, staged: Staged, directory: Path, context: Context) -> None:
        """Equal graphs give equal bytes."""
        graph, readers = made(module, staged, context)
        known = origins(graph, readers)
        with tempfile.TemporaryDirectory(dir=directory) as folder:
            openvino.save(graph, Path(folder))
            xml, weights = ((Path(folder) / name).read_bytes() for name in (openvino.GRAPH, openvino.CONSTANTS))
        (directory / PACKED).write_bytes(pack_graph(xml, weights, known, context.threads))

    def graph(self, directory: Path, threads: int) -> Any:
        """Decoded straight into memory; ArtifactError for a damaged file."""
        try:
            return read_packed((directory / PACKED).read_bytes(), threads)
        except (OSError, PayloadError) as error:
            raise ArtifactError(f"{directory / PACKED}: cannot be loaded: {error}") from None

    def unpack(self, directory: Path, output: Path) -> tuple[set[str], Listed | None]:
        """Write the graph as the openvino format has it; ArtifactError for a damaged file."""
        try:
            xml, weights = unpack_graph((directory / PACKED).read_bytes(), cores())
        except PayloadError as error:
            raise ArtifactError(f"{directory / PACKED}: cannot be unpacked: {error}") from None
        (output / openvino.GRAPH).write_bytes(xml)
        (output / openvino.CONSTANTS).write_bytes(weights.tobytes())
        return {PACKED, openvino.GRAPH, openvino.CONSTANTS}, None
