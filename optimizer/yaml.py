"""YAML as Hydra's OmegaConf reads and writes it: one loader, so that 1e-3 is a number everywhere."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

PACKAGE = "# @package _global_"
"""The first line of a recipe file, by which Hydra makes its keys those of the command."""


def dump(values: Any) -> str:
    """Plain values as YAML text, keys in the order given."""
    return OmegaConf.to_yaml(OmegaConf.create(values))


def load(path: Path) -> dict[str, Any]:
    """A YAML file's mapping as plain values, interpolations resolved."""
    values = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}
