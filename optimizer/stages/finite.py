"""What is not a number stays out of artifacts: refused by name where it comes from."""

import fnmatch
from collections.abc import Iterable, Sequence

import torch

from optimizer.errors import ModelError, StageError
from optimizer.model.weight import Codes, Parts, Weight


def check_original(weight: Weight, allowed: Sequence[str]) -> None:
    """Raise ModelError for a weight of the original that holds NaN or infinity, unless a pattern allows it.

    Tensors that the model does not know are not its weights.
    """
    if weight.role is not None and (count := _broken(weight)) and not _allows(allowed, weight.name):
        raise ModelError(
            f"{weight.name}: {count} of its values are NaN or infinite in the original; mend the model, or write "
            f"allow_nonfinite=['{weight.name}'] if they are meant"
        )


def check_staged(weight: Weight, label: str, before: Weight, allowed: Sequence[str]) -> None:
    """Raise StageError for a weight in which a stage has made NaN or infinity where there was none."""
    if (count := _broken(weight)) and not _allows(allowed, weight.name) and not _broken(before):
        raise StageError(
            f"stages.{label}: {weight.name}: {count} of its values have become NaN or infinite; "
            f"leave it out with skip: ['{before.name}']"
        )


def _allows(allowed: Iterable[str], name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in allowed)


def _broken(weight: Weight) -> int:
    """How many of the numbers that are stored for a weight are not finite."""
    match weight.stored:
        case Codes(scale=scale, columns=columns):
            return _count(scale) + (0 if columns is None else _count(columns))
        case Parts(tensors=tensors):
            return sum(map(_count, tensors.values()))
        case tensor:
            return _count(tensor)


def _count(tensor: torch.Tensor) -> int:
    if not tensor.is_floating_point() or bool(tensor.isfinite().all()):
        return 0
    return int((~tensor.isfinite()).sum())
