"""What an artifact is on disk and what runs it: one file a format, and the one table that names them."""

import json
from pathlib import Path
from typing import Any

from optimizer.errors import ArtifactError, ModelError
from optimizer.formats.dense import Dense
from optimizer.formats.format import Format
from optimizer.formats.onnx import Onnx
from optimizer.formats.openvino import OpenVINO
from optimizer.formats.packed import Packed
from optimizer.formats.packed_openvino import PackedOpenVINO
from optimizer.packing.marker import METHOD
from optimizer.settings import nearest

__all__ = ["FORMATS", "Format", "format_of", "load"]

_FORMATS: tuple[Format, ...] = (Dense(), Packed(), OpenVINO(), Onnx(), PackedOpenVINO())
FORMATS: dict[str, Format] = {format.name: format for format in _FORMATS}


def load(directory: str | Path, **options: Any) -> Any:
    """The model in `directory`, an artifact of any format or any other model directory, ready for inference.

    It is called like the transformers model; `options` go to what loads it, `from_pretrained` where that is
    transformers (dtype, device_map, ...). Raises ModelError when there is no readable config.json.
    """
    if not Path(directory).is_dir():
        raise ModelError(f"{directory}: is no directory; give that of an artifact, or of a model")
    return format_of(Path(directory)).load(Path(directory), **options)


def format_of(directory: Path) -> Format:
    """The format of an artifact, by its manifest or the marker in its config.json; dense for any other directory.

    Raises ArtifactError for a format that this release does not have.
    """
    manifest, config = (_read(directory / name) for name in ("manifest.json", "config.json"))
    if "original_fingerprint" in manifest:
        name = str(manifest.get("format"))
        if name not in FORMATS:
            raise ArtifactError(f"{directory}: unknown format '{name}'; {nearest(name, FORMATS)}")
        return FORMATS[name]
    quantization = config.get("quantization_config")
    packed = isinstance(quantization, dict) and quantization.get("quant_method") == METHOD
    return FORMATS["packed" if packed else "dense"]


def _read(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file, an empty one where there is none: what is wrong with it, loading will say."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
