"""What `from_pretrained` meets of a packed artifact: the plug-in, or, in a release that it does not fit, what to do."""

import importlib

import transformers
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING, AUTO_QUANTIZER_MAPPING
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from optimizer.packing.marker import METHOD

LOWEST, BEYOND = (5, 21), (5, 24)
"""The releases of transformers, by their first two numbers, that the plug-in was tried with: from, and no more."""


def fits(version: str) -> bool:
    """Whether the plug-in was tried with a release of transformers."""
    numbers = tuple(int(part) for part in version.split(".")[:2])
    return LOWEST <= numbers < BEYOND


class Refusal(QuantizationConfigMixin):  # type: ignore[misc]
    """Stands in for the plug-in's configuration; loading ends with it."""

    def __init__(self, **_: object) -> None:
        last = f"{BEYOND[0]}.{BEYOND[1] - 1}"
        raise ImportError(
            f"a packed artifact loads through from_pretrained with transformers {LOWEST[0]}.{LOWEST[1]} to {last}, not "
            f"{transformers.__version__}; write optimizer.load(DIRECTORY), or python -m optimizer.unpack DIRECTORY OUT"
        )


def register() -> None:
    """Put it where transformers looks for what a marker in config.json names."""
    if fits(transformers.__version__):
        importlib.import_module("optimizer.packing.plugin")
    else:
        AUTO_QUANTIZATION_CONFIG_MAPPING[METHOD] = Refusal
        AUTO_QUANTIZER_MAPPING[METHOD] = HfQuantizer
