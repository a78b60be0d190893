"""Store floating-point weights in half precision."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import ClassVar, Literal

import torch

from optimizer.errors import StageError
from optimizer.model.internals import is_left_out
from optimizer.model.outline import Outline
from optimizer.model.weight import ROLES, Place, Role, Weight, Weights
from optimizer.stages.stage import Context, Stage, Transform

_PARTLY_FLOAT32 = ("xlnet",)  # transformers loads its projections in float32 and all else as config.json says: it fails


class Cast(Stage):
    """`dtype` is what is stored; `compute` the dtype that `from_pretrained` then computes in.

    With `float32` a file of half the size still computes in float32: half precision is several times slower on a CPU.
    `auto` is float32 wherever the format can restore it, else stored.
    """

    kind: ClassVar[str] = "cast"
    default_roles: ClassVar[tuple[Role, ...]] = ROLES
    needs_floats: ClassVar[bool] = False
    only_casts: ClassVar[bool] = True

    dtype: Literal["float16", "bfloat16"] = "float16"
    compute: Literal["float32", "stored", "auto"] = "float32"

    def outline(self, before: Outline, routed: Mapping[str, Place]) -> Outline:
        """Half precision, but for integers and codes that stay as they are laid out."""
        entries = (before.entries[name] for name in routed)
        after = before.with_entries(
            replace(entry, dtype=self._dtype_of(routed[entry.name].module, before))
            for entry in entries
            if entry.dtype.is_floating_point and not (entry.quantized and entry.quantized.fixed)
        )
        as_stored = self.compute == "stored" or (self.compute == "auto" and before.loads_as_stored)
        return after.with_config(dtype=self.dtype if as_stored else "float32", torch_dtype=None)

    def _dtype_of(self, module: str | None, outline: Outline) -> torch.dtype:
        """What a module's weights are stored in: beside what loads as it is stored, none that is to be in float32."""
        kept = self.dtype == "float16" and outline.loads_as_stored and is_left_out(module or "", outline.precise)
        dtype: torch.dtype = torch.float32 if kept else getattr(torch, self.dtype)
        return dtype

    def check(self, last: Outline) -> None:
        """Where tensors load as they are stored, nothing computes in another dtype; some load as float32 alone."""
        family, dtype = last.config.get("model_type"), last.config.get("dtype")
        if family in _PARTLY_FLOAT32 and dtype != "float32":
            remedy = "format=packed" if self.compute == "auto" else "compute: float32"
            raise StageError(
                f"compute: transformers loads parts of '{family}' in float32 beside {dtype}; write {remedy}"
            )
        if self.compute == "float32" and last.loads_as_stored:
            raise StageError(
                f"compute: float32 does not hold beside {last.method} in this format, where other weights load in the "
                "dtype they are stored in; write compute: stored"
            )

    def prepare(self, weights: Weights, context: Context) -> Transform:
        """Needs no pass over the weights."""
        advice = "write dtype: bfloat16, or " if self.dtype == "float16" else ""

        def transform(weight: Weight) -> Iterable[Weight]:
            yield cast_weight(weight, self._dtype_of(weight.module, context.outline), advice)

        return transform


def cast_weight(weight: Weight, dtype: torch.dtype, advice: str = "") -> Weight:
    """A weight rounded to `dtype`, codes restored as it; errors and `advice` as of `cast`."""
    if weight.codes:
        cast(weight.codes.extremes(), dtype, weight.name, advice)
        return weight.with_codes(replace(weight.codes, dtype=dtype))
    return weight.with_tensor(cast(weight.tensor, dtype, weight.name, advice))


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
