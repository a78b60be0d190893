"""bitsandbytes 8-bit and 4-bit linear layers, written tensor by tensor in the layout that `from_pretrained` reads.

LLM.int8(): Dettmers et al. (2022); NF4 and double quantization: Dettmers et al., QLoRA (2023).
"""

import importlib
import logging
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import reduce
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field

from optimizer.errors import NothingToDo
from optimizer.model.internals import exactly, is_left_out
from optimizer.model.outline import Entry, Outline, Quantized
from optimizer.model.weight import Parts, Place, Weight, Weights
from optimizer.stages.cast import cast, cast_weight
from optimizer.stages.stage import Context, Stage, Transform

_CPU_ROWS = 32  # its 4-bit CPU kernel works on blocks of this many output features
_BLOCK = 64
_SCALE_BITS = 32
_INT8_MAX = 127


class Bitsandbytes(Stage):
    """Linear weights as 8-bit rows (LLM.int8()) or 4-bit blocks of 64 (`type` nf4 or fp4).

    Heads and tied outputs stay as they are, and so do shapes that its CPU kernels cannot take; the log names them.
    `double_quantization` also quantizes the 4-bit scales; `outliers` is LLM.int8()'s threshold, beyond which an input
    feature is multiplied in float.
    """

    kind: ClassVar[str] = "bitsandbytes"
    packages: ClassVar[tuple[str, ...]] = ("bitsandbytes",)
    extra: ClassVar[str | None] = "bitsandbytes"

    bits: Literal[4, 8] = 8
    type: Literal["nf4", "fp4"] = "nf4"
    double_quantization: bool = True
    outliers: float = Field(default=6.0, ge=0)

    def outline(self, before: Outline, routed: Mapping[str, Place]) -> Outline:
        """Chooses the modules by their place and shape; config.json names all others."""
        chosen, kept = self._choice(before, routed)
        if not chosen:
            reasons = "".join(f" ({routed[name].module}: {reason})" for name, reason in list(kept.items())[:1])
            raise NothingToDo(f"no linear layer is left to quantize{reasons}")
        skipped = _skips(before, chosen)
        dtype, others = _beside(before, chosen.values())
        quantized = Quantized(self._stored_bits(), fixed=True)
        after = before.with_entries(replace(entry, quantized=quantized) for entry in chosen.values())
        if not before.casts:
            after = after.with_entries(replace(before.entries[name], dtype=own) for name, own in others.items())
        stored = str(dtype).removeprefix("torch.")
        return after.with_config(dtype=stored, torch_dtype=None, quantization_config=self._config(skipped))

    def _stored_bits(self) -> float:
        """Its bits, and the scales of the 4-bit blocks."""
        if self.bits == 8:
            return self.bits
        return self.bits + (_SCALE_BITS / 4 if self.double_quantization else _SCALE_BITS) / _BLOCK

    def prepare(self, weights: Weights, context: Context) -> Transform:
        """Needs no pass over the weights; the log names those kept as they are."""
        chosen, kept = self._choice(context.outline, context.routed)
        for module, reason in {context.routed[name].module: reason for name, reason in kept.items()}.items():
            context.log(f"bitsandbytes: {module} stays as it is: {reason}")
        names = {entry.name for entry in chosen.values()}
        others = {} if context.outline.casts else _beside(context.outline, chosen.values())[1]

        def transform(weight: Weight) -> list[Weight]:
            if weight.name not in names:
                return [cast_weight(weight, others[weight.name]) if weight.name in others else weight]
            if self.bits == 8:
                return [quantize_8bit(weight)]
            return [quantize_4bit(weight, self.type, self.double_quantization)]

        return transform

    def leaves_alone(self, before: Outline, routed: Mapping[str, Place]) -> Mapping[str, str]:
        """All but the chosen weights."""
        chosen, kept = self._choice(before, routed)
        others = routed.keys() - {entry.name for entry in chosen.values()}
        return dict.fromkeys(others, "bitsandbytes is for linear layers") | kept

    def _choice(self, outline: Outline, routed: Mapping[str, Place]) -> tuple[dict[str, Entry], dict[str, str]]:
        """The weights to quantize by their modules, and why other linear ones stay as they are, by their names."""
        chosen: dict[str, Entry] = {}
        kept: dict[str, str] = {}
        for name, place in routed.items():
            if place.role == "linear":
                reason = outline.linear.get(place.module, "transformers quantizes no layer of its kind")
                reason = reason or self._misfit(outline.entries[name].shape, place.input_axis)
                if reason:
                    kept[name] = reason
                else:
                    chosen[place.module] = outline.entries[name]
        return chosen, dict(sorted(kept.items(), key=lambda item: routed[item[0]].module))

    def _misfit(self, shape: tuple[int, ...], input_axis: int) -> str | None:
        """Why a matrix cannot be quantized, None if it can."""
        if self.bits == 8:
            return None
        outputs, inputs = shape[::-1] if input_axis == 0 else shape
        if not (outputs % _CPU_ROWS or inputs % _BLOCK):
            return None
        return f"the 4-bit CPU kernel needs multiples of {_CPU_ROWS} x {_BLOCK}, it is {outputs} x {inputs}"

    def _config(self, skipped: list[str]) -> dict[str, Any]:
        common = {
            "quant_method": "bitsandbytes",
            "load_in_8bit": self.bits == 8,
            "load_in_4bit": self.bits == 4,
            # Never empty or absent: transformers would then choose, and quantize a head that ends in a bias.
            "llm_int8_skip_modules": skipped,
            "llm_int8_threshold": self.outliers,
        }
        if self.bits == 8:
            return common
        return common | {
            "bnb_4bit_quant_type": self.type,
            "bnb_4bit_use_double_quant": self.double_quantization,
            "bnb_4bit_compute_dtype": "float32",
            "bnb_4bit_quant_storage": "uint8",
        }


def quantize_8bit(weight: Weight) -> Weight:
    """LLM.int8() rows: `weight` int8 (outputs x inputs), `SCB` float32 row maxima, `weight_format` 0 (row-major)."""
    original = weight.tensor
    half = cast(_turned(original, weight).contiguous(), torch.float16, weight.name)
    codes, maxima, _ = _functional().int8_vectorwise_quant(half)
    prefix = weight.name.removesuffix("weight")
    tensors = {
        weight.name: codes,
        f"{prefix}SCB": maxima,
        f"{prefix}weight_format": torch.tensor(0, dtype=torch.uint8),
    }

    def restored() -> torch.Tensor:
        return _turned(codes.float() * (maxima / _INT8_MAX).unsqueeze(1), weight)

    return weight.with_parts(Parts(tensors, restored))


def quantize_4bit(weight: Weight, kind: str, double_quantization: bool) -> Weight:
    """Two codes a byte in `weight` (uint8, n x 1), beside it the block scales and their description."""
    matrix = _turned(weight.tensor, weight).float().contiguous()
    codes, state = _functional().quantize_4bit(
        matrix, blocksize=_BLOCK, compress_statistics=double_quantization, quant_type=kind
    )
    parts = state.as_dict(packed=True)
    tensors = {weight.name: codes} | {f"{weight.name}.{part}": parts[part] for part in sorted(parts)}

    def restored() -> torch.Tensor:
        return _turned(_functional().dequantize_4bit(codes, state), weight)

    return weight.with_parts(Parts(tensors, restored))


def _functional() -> Any:
    # On its import it reports an optional kernel that it can do without.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    return importlib.import_module("bitsandbytes.functional")


def _turned(matrix: torch.Tensor, weight: Weight) -> torch.Tensor:
    """From the checkpoint's layout to outputs x inputs, in which bitsandbytes stores every layer, and back."""
    return matrix.T if weight.input_axis == 0 else matrix


def _beside(outline: Outline, chosen: Collection[Entry]) -> tuple[torch.dtype, dict[str, torch.dtype]]:
    """The one dtype of the floats beside the chosen weights, which loses none of their digits, and that of each.

    They load as they are stored, and biases as config.json says: both must say the same, or no layer computes. Of a
    model in float16, what it keeps in float32 itself is of another.
    """
    names = {entry.name for entry in chosen}
    others = [
        (entry, entry.place.module)
        for entry in outline.entries.values()
        if entry.place is not None and entry.dtype.is_floating_point and entry.name not in names
    ]
    precise = {entry.name for entry, module in others if is_left_out(module, outline.precise)}
    rest = [entry for entry, _ in others if entry.name not in precise] or list(chosen)
    dtype = reduce(torch.promote_types, (entry.dtype for entry in rest))
    least = torch.float32 if dtype == torch.float16 else dtype
    return dtype, {
        entry.name: torch.promote_types(entry.dtype, least) if entry.name in precise else dtype for entry, _ in others
    }


def _skips(outline: Outline, chosen: Collection[str]) -> list[str]:
    """What config.json gets to say that all linear modules but the chosen ones stay as they are.

    transformers reads names as patterns and as endings: one that would also mean a chosen module is anchored.
    """
    return [
        exactly(name) if any(is_left_out(other, [name]) for other in chosen) else name
        for name in outline.linear
        if name not in chosen
    ]
