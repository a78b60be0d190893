"""What runs an artifact of any format, with no more installed than that takes; the one table of what loads which."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

from optimizer.errors import ArtifactError, ModelError, RecipeError, nearest
from optimizer.integrity import check_files, check_tensors
from optimizer.loading import dense, graphs, packed
from optimizer.manifest import find_manifest, read_manifest
from optimizer.model.runnable import Runnable
from optimizer.packing.marker import METHOD

__all__ = ["format_name", "load"]

_LOADERS: dict[str, Callable[..., Runnable]] = {
    "dense": dense.load,
    "packed": packed.load,
    "openvino": graphs.openvino,
    "onnx": graphs.onnx,
    "packed_openvino": graphs.packed_openvino,
}

Extent = Literal["loaded", "full"]
"""How much of an artifact is held against its manifest before it is loaded: what loading reads, or every file first."""


def load(directory: str | Path, *, verify: Extent = "loaded", **options: Any) -> Any:
    """The model in `directory`, an artifact of any format or any other model directory, ready for inference.

    It is called like the transformers model; `options` go to what loads it, `from_pretrained` where that is
    transformers (dtype, device_map, ...). Raises ArtifactError, before there is a model, for an artifact that is not
    what was written; ModelError when there is no readable config.json; PackageError for a package that it needs.
    """
    if verify not in get_args(Extent):
        raise RecipeError(f"verify: {verify!r}: is none of {', '.join(get_args(Extent))}; write verify='full'")
    place, full = Path(directory), verify == "full"
    if not place.is_dir():
        raise ModelError(f"{directory}: is no directory; give that of an artifact, or of a model")
    if manifest := read_manifest(place) if full else find_manifest(place):
        check_files(place, manifest, every=full)
        check_tensors(place, manifest)
    return _LOADERS[format_name(place)](place, **options)


def format_name(directory: Path) -> str:
    """The format of an artifact, by its manifest or the marker in its config.json; dense for any other directory.

    Raises ArtifactError for a format that this release does not have.
    """
    if manifest := find_manifest(directory):
        name = str(manifest.format)
        if name not in _LOADERS:
            raise ArtifactError(f"{directory}: unknown format '{name}'; {nearest(name, _LOADERS)}")
        return name
    quantization = _read(directory / "config.json").get("quantization_config")
    is_packed = isinstance(quantization, dict) and quantization.get("quant_method") == METHOD
    return "packed" if is_packed else "dense"


def _read(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file, an empty one where there is none: what is wrong with it, loading will say."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
