"""Store floating-point weights in half precision."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import torch

from optimizer.errors import StageError
from optimizer.model.weight import ROLES, Role, Weight, Weights
from optimizer.settings import Settings
from optimizer.stages.stage import Context, Prepared, Stage

_BITS = 16


class Cast(Settings):
    """`dtype` is what is stored; `compute` the dtype that `from_pretrained` then computes in.

    With `float32` a file of half the size still computes in float32: half precision is several times slower on a CPU.
    `auto` is float32 wherever the format can restore it, else stored.
    """

    kind: ClassVar[str] = "cast"
    default_roles: ClassVar[tuple[Role, ...]] = ROLES
    makes_codes: ClassVar[bool] = False
    needs_floats: ClassVar[bool] = False
    loads_as_stored: ClassVar[bool] = False

    dtype: Literal["float16", "bfloat16"] = "float16"
    compute: Literal["float32", "stored", "auto"] = "float32"

    def conflict(self, others: Sequence[Stage], output_format: str) -> str | None:
        """A dense artifact whose tensors load as they are stored cannot compute in another dtype."""
        for other in others:
            if self.compute == "float32" and other.loads_as_stored and output_format == "dense":
                return (
                    f"compute: float32 does not hold beside {other.kind} in a dense artifact, where other weights load "
                    f"in the dtype they are stored in; write compute: stored"
                )
        return None

    def stored_bits(self, bits: float, output_format: str) -> float:
        """Half precision, unless integer codes take less already."""
        return min(bits, _BITS)

    def prepare(self, weights: Weights, context: Context) -> Prepared:
        """Needs no pass over the weights."""
        dtype: torch.dtype = getattr(torch, self.dtype)
        advice = "write dtype: bfloat16, or " if dtype == torch.float16 else ""

        def transform(weight: Weight) -> Iterable[Weight]:
            rounded = cast(weight.tensor, dtype, weight.name, advice)
            yield weight.with_codes(replace(weight.codes, dtype=dtype)) if weight.codes else weight.with_tensor(rounded)

        as_stored = self.compute == "stored" or (self.compute == "auto" and context.loads_as_stored)
        return Prepared(transform, {"dtype": self.dtype if as_stored else "float32", "torch_dtype": None})


def cast(tensor: torch.Tensor, dtype: torch.dtype, name: str, advice: str = "") -> torch.Tensor:
    """A floating-point tensor rounded to `dtype`; any other as it is.

    Raises StageError when a finite value would become infinite; `advice` begins its remedy.
    """
    if not tensor.is_floating_point():
        return tensor
    result = tensor.to(dtype)
    if torch.isinf(result).sum() != torch.isinf(tensor).sum():
        largest = tensor[torch.isfinite(tensor)].abs().max().item()
        limit = torch.finfo(dtype).max
        raise StageError(
            f"{name}: its largest value {largest:g} is beyond {str(dtype).removeprefix('torch.')}'s {limit:g}; "
            f"{advice}leave it out with skip: ['{name}']"
        )
    return result
