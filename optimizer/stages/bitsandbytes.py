"""bitsandbytes 8-bit and 4-bit linear layers, written tensor by tensor in the layout that `from_pretrained` reads.

LLM.int8(): Dettmers et al. (2022); NF4 and double quantization: Dettmers et al., QLoRA (2023).
"""

import importlib.util
import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from transformers import PreTrainedModel
from transformers.quantizers.quantizers_utils import should_convert_module

from optimizer.errors import StageError
from optimizer.model.roles import is_linear
from optimizer.model.weight import Role, Weight, Weights
from optimizer.settings import Settings
from optimizer.stages.cast import cast
from optimizer.stages.stage import Context, Prepared, Stage

_CPU_ROWS = 32  # its 4-bit CPU kernel works on blocks of this many output features
_BLOCK = 64
_SCALE_BITS = 32


class Bitsandbytes(Settings):
    """Linear weights as 8-bit rows (LLM.int8()) or 4-bit blocks of 64 (`type` nf4 or fp4).

    Heads and tied outputs stay as they are, and so do shapes that its CPU kernels cannot take; the log names them.
    `double_quantization` also quantizes the 4-bit scales; `outliers` is LLM.int8()'s threshold, beyond which an input
    feature is multiplied in float.
    """

    kind: ClassVar[str] = "bitsandbytes"
    default_roles: ClassVar[tuple[Role, ...]] = ("linear",)
    makes_codes: ClassVar[bool] = True
    needs_floats: ClassVar[bool] = True
    loads_as_stored: ClassVar[bool] = True

    bits: Literal[4, 8] = 8
    type: Literal["nf4", "fp4"] = "nf4"
    double_quantization: bool = True
    outliers: float = Field(default=6.0, ge=0)

    def conflict(self, others: Sequence[Stage], output_format: str) -> str | None:
        """It needs its package."""
        if importlib.util.find_spec("bitsandbytes") is None:
            return "needs the package bitsandbytes; run: pip install bitsandbytes"
        return None

    def stored_bits(self, bits: float, output_format: str) -> float:
        """Its bits, and the scales of the 4-bit blocks."""
        if self.bits == 8:
            return self.bits
        return self.bits + (_SCALE_BITS / 4 if self.double_quantization else _SCALE_BITS) / _BLOCK

    def prepare(self, weights: Weights, context: Context) -> Prepared:
        """Chooses the modules by their place and shape; reads one weight, for its dtype."""
        modules = {name: module for name, module in context.model.named_modules() if is_linear(module)}
        linear = {place.module for place in context.routed.values() if place.role == "linear"}
        chosen = linear & set(modules)
        chosen -= self._refused(chosen, context)
        if not chosen:
            raise StageError("bitsandbytes: no linear layer is left to quantize; the log says why; remove the stage")
        skipped = [name for name in modules if name not in chosen]
        _check_skips(modules, skipped, context)

        def transform(weight: Weight) -> Iterable[Weight]:
            if weight.role != "linear" or weight.module not in chosen:
                return [weight]
            return (
                quantize_8bit(weight) if self.bits == 8 else quantize_4bit(weight, self.type, self.double_quantization)
            )

        # The other weights load as they are stored and biases as config.json says: both must say the same.
        stored = str(next(iter(weights())).tensor.dtype).removeprefix("torch.")
        config = {"dtype": stored, "torch_dtype": None, "quantization_config": self._config(skipped)}
        return Prepared(transform, config)

    def _refused(self, chosen: set[str], context: Context) -> set[str]:
        """The modules kept as they are, each named in the log with the reason."""
        reasons = heads(context.model)
        for name in chosen - set(reasons) if self.bits == 4 else ():
            outputs, inputs = _rows_first(context.model.get_submodule(name))
            if outputs % _CPU_ROWS or inputs % _BLOCK:
                reasons[name] = (
                    f"the 4-bit CPU kernel needs multiples of {_CPU_ROWS} x {_BLOCK}, it is {outputs} x {inputs}"
                )
        for name in sorted(chosen & set(reasons)):
            context.log(f"bitsandbytes: {name} stays as it is: {reasons[name]}")
        return set(reasons)

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


def heads(model: PreTrainedModel) -> dict[str, str]:
    """The linear modules that a quantizer leaves alone, each with the reason."""
    linear = [name for name, module in model.named_modules() if is_linear(module)]
    base = f"{model.base_model_prefix}."
    reasons = {}
    if model.base_model is not model:
        outside = [name for name in linear if not name.startswith(base)]
        reasons.update(dict.fromkeys(outside[-1:], "it is the head"))
    output = model.get_output_embeddings()
    tied = {name.rpartition(".")[0] for pair in model.all_tied_weights_keys.items() for name in pair}
    precise = set(model._keep_in_fp32_modules or ())
    for name in linear:
        if model.get_submodule(name) is output:
            reasons[name] = "it is the output"
        elif name in tied:
            reasons[name] = "its weight is tied to another"
        elif not should_convert_module(name, list(precise)):
            reasons[name] = "the model keeps it in float32"
    return reasons


def quantize_8bit(weight: Weight) -> list[Weight]:
    """LLM.int8() rows: `weight` int8 (outputs x inputs), `SCB` float32 row maxima, `weight_format` 0 (row-major)."""
    half = cast(_linear_layout(weight).contiguous(), torch.float16, weight.name)
    codes, maxima, _ = _functional().int8_vectorwise_quant(half)
    prefix = weight.name.removesuffix("weight")
    return [
        replace(weight, tensor=codes, role=None),
        Weight(f"{prefix}SCB", maxima, None, weight.module),
        Weight(f"{prefix}weight_format", torch.tensor(0, dtype=torch.uint8), None, weight.module),
    ]


def quantize_4bit(weight: Weight, kind: str, double_quantization: bool) -> list[Weight]:
    """Two codes a byte in `weight` (uint8, n x 1), beside it the block scales and their description."""
    matrix = _linear_layout(weight).float().contiguous()
    codes, state = _functional().quantize_4bit(
        matrix, blocksize=_BLOCK, compress_statistics=double_quantization, quant_type=kind
    )
    parts = state.as_dict(packed=True)
    return [
        replace(weight, tensor=codes, role=None),
        *(Weight(f"{weight.name}.{part}", parts[part], None, weight.module) for part in sorted(parts)),
    ]


def _functional() -> Any:
    # On its import it reports an optional kernel that it can do without.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    return importlib.import_module("bitsandbytes.functional")


def _linear_layout(weight: Weight) -> torch.Tensor:
    """Outputs x inputs, the way bitsandbytes stores every layer, GPT-2's transposed Conv1D too."""
    return weight.tensor.T if weight.input_axis == 0 else weight.tensor


def _rows_first(module: torch.nn.Module) -> tuple[int, int]:
    rows, columns = module.weight.shape  # type: ignore[misc]
    return (rows, columns) if isinstance(module, torch.nn.Linear) else (columns, rows)


def _check_skips(modules: Iterable[str], skipped: list[str], context: Context) -> None:
    """transformers matches skipped names as patterns: make sure that they mean these modules and no others."""
    precise = list(context.model._keep_in_fp32_modules or ())
    for name in modules:
        if should_convert_module(name, [*skipped, *precise]) == (name in skipped):
            raise StageError(
                f"bitsandbytes: {name} cannot be told apart from {', '.join(skipped)} in config.json; skip it too"
            )
