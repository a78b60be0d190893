"""The packed format: matrices as entropy-coded payloads under their own names, which load after `import optimizer`.

A payload's shape is never the weight's, so that without the plug-in loading stops instead of giving random weights;
vectors and single values are stored plain, because a payload of the right length would pass for one.
"""

import os
from typing import Any

import torch

from optimizer.model.weight import Weight
from optimizer.packing.marker import FORMAT_VERSION, METHOD
from optimizer.packing.payload import is_payload, pack, unpack

_MATRIX = 2
_THREADS = len(os.sched_getaffinity(0))


def store(weight: Weight) -> torch.Tensor:
    """What is written for a weight: a payload for matrices that the plug-in meets, else its values."""
    if weight.module is None or weight.tensor.ndim < _MATRIX or not weight.name.endswith("weight"):
        return weight.tensor
    return pack(weight, _THREADS)


def restore(stored: torch.Tensor) -> torch.Tensor:
    """The values of what `store` gave."""
    return unpack(stored, threads=_THREADS) if is_payload(stored) else stored


def configure(config: dict[str, Any]) -> dict[str, Any]:
    """config.json with the marker that makes transformers call the plug-in."""
    marker: dict[str, Any] = {"quant_method": METHOD, "format_version": FORMAT_VERSION}
    if "quantization_config" in config:
        marker["bitsandbytes"] = config["quantization_config"]
    return config | {"quantization_config": marker}
