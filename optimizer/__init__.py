"""Make a fine-tuned Transformer small and fast, and prove that it still answers the same."""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

import wrapt

if TYPE_CHECKING:
    from optimizer.api import compare, compose, run, sweep
    from optimizer.artifact.upload import push
    from optimizer.loading import load
    from optimizer.report.between import diff

__version__ = "0.1.0"
__all__ = ["compare", "compose", "diff", "load", "push", "run", "sweep"]

_LAZY = {"load": "optimizer.loading", "push": "optimizer.artifact.upload", "diff": "optimizer.report.between"}
_LAZY |= dict.fromkeys(("compare", "compose", "run", "sweep"), "optimizer.api")


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        try:
            return getattr(importlib.import_module(_LAZY[name]), name)
        except ModuleNotFoundError as error:
            from optimizer.errors import lacking

            if (error.name or "").partition(".")[0] == "optimizer":
                raise
            raise lacking(error) from None
    raise AttributeError(f"module 'optimizer' has no attribute '{name}'")


@wrapt.when_imported("transformers.quantizers.auto")
def _register(_: ModuleType) -> None:
    """Let transformers load packed artifacts, as soon as it is there; neither it nor torch is imported for that."""
    importlib.import_module("optimizer.packing.hook").register()
