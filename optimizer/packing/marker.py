"""What marks an artifact as packed in its config.json."""

from collections.abc import Mapping
from typing import Any

METHOD = "optimizer_packed"
FORMAT_VERSION = 1
FIRST = "packed; write import optimizer first"
"""Stands as `attn_implementation` in config.json: where nobody takes it away, transformers ends with these words.

It does so before it reads a weight, so that `ignore_mismatched_sizes` cannot turn payloads into random weights.
"""

_ATTENTION, _QUANTIZATION = "attn_implementation", "quantization_config"
_BITSANDBYTES = "bitsandbytes"


def marked(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of a packed artifact whose dense one has this; what it takes the place of is in the marker."""
    marker: dict[str, Any] = {"quant_method": METHOD, "format_version": FORMAT_VERSION}
    if _QUANTIZATION in config:
        marker[_BITSANDBYTES] = config[_QUANTIZATION]
    if _ATTENTION in config:
        marker[_ATTENTION] = config[_ATTENTION]
    return {**config, _ATTENTION: FIRST, _QUANTIZATION: marker}


def unmarked(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the config.json of the dense artifact has, but for what bitsandbytes would read there; and the marker."""
    plain = dict(config)
    marker: dict[str, Any] = plain.pop(_QUANTIZATION)
    if plain.get(_ATTENTION) == FIRST:  # an artifact of old has none
        del plain[_ATTENTION]
    if _ATTENTION in marker:
        plain[_ATTENTION] = marker[_ATTENTION]
    return plain, marker
