"""What all launchers share: one attempt at an item, and what may be missing for it."""

import importlib
import traceback
from collections.abc import Callable
from typing import Any

from optimizer.errors import OptimizerError, RecipeError, as_optimizer_error, first_line, install
from optimizer.launchers.launcher import R, T


def attempt(function: Callable[[T], R], item: T) -> R | OptimizerError:
    """What `function` returns for `item`, or the error that it raises, anything unforeseen as a ProcessError."""
    try:
        return function(item)
    except Exception as error:
        failure = as_optimizer_error(error)
        failure.add_note(traceback.format_exc())
        return failure


def require(package: str) -> Any:
    """The module `package`; RecipeError with what to install where it is missing."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise RecipeError(
            f"hydra.launcher: {package} cannot be imported ({first_line(error)}); write {install(package)}"
        ) from None
