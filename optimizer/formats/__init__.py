"""What an artifact is on disk: one file a format, and the one table that names them."""

from pathlib import Path

from optimizer.formats.dense import Dense
from optimizer.formats.format import Format
from optimizer.formats.onnx import Onnx
from optimizer.formats.openvino import OpenVINO
from optimizer.formats.packed import Packed
from optimizer.formats.packed_openvino import PackedOpenVINO
from optimizer.loading import format_name

__all__ = ["FORMATS", "Format", "format_of"]

_FORMATS: tuple[Format, ...] = (Dense(), Packed(), OpenVINO(), Onnx(), PackedOpenVINO())
FORMATS: dict[str, Format] = {format.name: format for format in _FORMATS}


def format_of(directory: Path) -> Format:
    """The format of an artifact, as loading tells it; ArtifactError for one that this release does not have."""
    return FORMATS[format_name(directory)]
