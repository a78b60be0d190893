"""YAML as Hydra's OmegaConf reads and writes it: one loader, so that 1e-3 is a number everywhere."""

from typing import Any

from omegaconf import OmegaConf


def dump(values: Any) -> str:
    """Plain values as YAML text, keys in the order given."""
    return OmegaConf.to_yaml(OmegaConf.create(values))
