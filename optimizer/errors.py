"""The errors that users meet: each is one line that says where, what, and what to write instead."""

import difflib
from collections.abc import Iterable


class OptimizerError(Exception):
    """Anything a user can put right."""


class RecipeError(OptimizerError):
    """The command or the recipe is wrong."""


class PackageError(RecipeError):
    """The recipe needs a package that is not installed."""


class ModelError(OptimizerError):
    """The original cannot be read."""


class DataError(OptimizerError):
    """The texts or their labels cannot be read."""


class StageError(OptimizerError):
    """A stage cannot be applied to this model."""


class NothingToDo(StageError):
    """A model has nothing that a stage is for: said without a remedy, which is to remove the stage."""


class ArtifactError(OptimizerError):
    """An artifact cannot be written, or is not what its manifest says."""


class HubError(OptimizerError):
    """The hub cannot be reached, or refuses what is asked of it."""


class EvaluationError(OptimizerError):
    """A figure could not be measured."""


class ProcessError(OptimizerError):
    """A process that did a part of a run died, or failed in a way that nobody foresaw."""


def nearest(word: str, known: Iterable[str], where: str = "") -> str:
    """A tail for an error line: the closest known word, below `where` if that is said, else all of them."""
    names = list(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{where}.{close[0]}'?" if where else f"did you mean '{close[0]}'?"
    return f"known: {', '.join(names)}" if names else "there are none"


def install(extra: str) -> str:
    """The command that brings an extra of this package; the name that pip knows it by is in pyproject.toml too."""
    return f"pip install 'transformer-optimizer[{extra}]'"


def lacking(error: ModuleNotFoundError, extra: str = "run") -> PackageError:
    """The one line about a module that is not installed, which an extra of this package brings."""
    package = (error.name or "").partition(".")[0]
    return PackageError(f"the package {package} is not installed; run: {install(extra)}")


def as_optimizer_error(error: Exception) -> OptimizerError:
    """The error itself if it is one that users meet, else a ProcessError of its type and its first line."""
    if isinstance(error, OptimizerError):
        return error
    name, line = type(error).__name__, first_line(error)
    return ProcessError(line if line == name else f"{name}: {line}")


def first_line(error: BaseException) -> str:
    """The first line of an error's text, with what it announces by a colon; its type's name where it has none."""
    found = ""
    for line in filter(None, map(str.strip, str(error).splitlines())):
        found = f"{found} {line}".lstrip()
        if not found.endswith(":"):
            break
    return found or type(error).__name__
