"""The plug-in with which transformers loads packed artifacts: it unpacks each weight as it is loaded.

These hooks are inner parts of transformers: hook.py knows the releases that they were tried with.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers.core_model_loading import ConversionOps, WeightConverter, _IdentityOp, build_glob_alternation
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING, AUTO_QUANTIZER_MAPPING
from transformers.quantizers.base import HfQuantizer
from transformers.quantizers.quantizer_bnb_4bit import Bnb4BitHfQuantizer
from transformers.quantizers.quantizer_bnb_8bit import Bnb8BitHfQuantizer
from transformers.utils.quantization_config import BitsAndBytesConfig, QuantizationConfigMixin

from optimizer.packing.marker import FIRST, FORMAT_VERSION, METHOD
from optimizer.packing.payload import PayloadError, is_payload, restored_shape, unpack
from optimizer.processes.cores import cores

_MATRIX = 2  # axes at least


class PackedConfig(QuantizationConfigMixin):  # type: ignore[misc]
    """The `quantization_config` of a packed artifact; what else it has is of the artifact that it would be unpacked."""

    def __init__(
        self,
        format_version: int = 0,
        bitsandbytes: dict[str, Any] | None = None,
        attn_implementation: str | dict[str, str] | None = None,
        **_: Any,
    ) -> None:
        if format_version != FORMAT_VERSION:
            raise ValueError(
                f"packed format version {format_version} is not {FORMAT_VERSION}; load it with the release of "
                "optimizer that wrote it"
            )
        self.format_version = format_version
        self.bitsandbytes = bitsandbytes
        self.attn_implementation = attn_implementation
        self.dequantize = True  # what is loaded is a plain model, and is saved as one
        self.quant_method = METHOD + _suffix(bitsandbytes)


class Converter(WeightConverter):  # type: ignore[misc]
    """A converter whose errors stop the loading with their own words, which transformers puts into its log alone."""

    def convert(self, layer_name: str, model: Any = None, config: Any = None, *_: Any, **__: Any) -> dict[str, Any]:
        """The parameters that come of the collected tensors."""
        result: dict[str, Any] = super().convert(layer_name, model, config)
        return result


class Unpack(ConversionOps):  # type: ignore[misc]
    """Payloads to tensors in the dtype and on the device of the parameter; other tensors are only cast.

    `whole` says that each tensor is the parameter, not a part that is merged into it afterwards.
    """

    def __init__(self, hf_quantizer: "_Packed", whole: bool = True) -> None:
        # Under this name the loader leaves tensors as they are stored until they have been here.
        self.hf_quantizer = hf_quantizer
        self.whole = whole

    def convert(
        self, input_dict: dict[str, Any], full_layer_name: str = "", model: Any = None, **_: Any
    ) -> dict[str, Any]:
        """A list of tensors for each source, as they came."""
        parameter = model.get_parameter_or_buffer(full_layer_name)
        shape = tuple(parameter.shape) if self.whole else None
        dtype = self.hf_quantizer.dtype_of(model, full_layer_name)
        return {
            # Under its pattern for the model's own operations, else under its name.
            full_layer_name if self.whole else key: [
                _restored(tensor, dtype, shape, parameter.numel(), full_layer_name) for tensor in _listed(tensors)
            ]
            for key, tensors in input_dict.items()
        }

    @property
    def reverse_op(self) -> ConversionOps:
        """What was loaded is saved as it is, plain."""
        return _IdentityOp()


class Unpack8Bit(Unpack):
    """The weight unpacked, then given to bitsandbytes with its scales."""

    deserializer = "Bnb8bitDeserialize"

    def convert(
        self, input_dict: dict[str, Any], full_layer_name: str = "", model: Any = None, **options: Any
    ) -> dict[str, Any]:
        """A parameter of bitsandbytes, or a plain tensor for what is not quantized."""
        if len(input_dict) == 1:
            return super().convert(input_dict, full_layer_name, model)
        # Imported late: it imports bitsandbytes, which takes seconds.
        from transformers.integrations import bitsandbytes

        parameter = model.get_parameter_or_buffer(full_layer_name)
        (stored,) = _listed(input_dict["weight"])
        shape = self.codes_shape(parameter)
        codes = _restored(stored, parameter.dtype, shape, math.prod(shape), full_layer_name)
        operation = getattr(bitsandbytes, self.deserializer)(self.hf_quantizer)
        result: dict[str, Any] = operation.convert(
            {**input_dict, "weight": codes}, full_layer_name=full_layer_name, model=model, **options
        )
        return result

    def codes_shape(self, parameter: torch.Tensor) -> tuple[int, ...]:
        """The shape of the codes that are stored for a parameter: its own."""
        return tuple(parameter.shape)


class Unpack4Bit(Unpack8Bit):
    """The weight unpacked, then given to bitsandbytes with the parts of its scales."""

    deserializer = "Bnb4bitDeserialize"

    def codes_shape(self, parameter: torch.Tensor) -> tuple[int, ...]:
        """Two codes a byte, in one column."""
        return -(-parameter.numel() // 2), 1


class _Packed(HfQuantizer):  # type: ignore[misc]
    """What the three quantizers share: weights in the dtype that the model computes in, and errors that stop."""

    operation: ClassVar[type[Unpack]]

    def update_attn_implementation(self, config: Any) -> Any:
        """The artifact's own in place of the words with which transformers would end where this plug-in is missing."""
        if config._attn_implementation == FIRST:
            config._attn_implementation = None
            if config.quantization_config.attn_implementation is not None:
                config._attn_implementation = config.quantization_config.attn_implementation
        return config

    def preprocess_model(self, model: Any, dtype: Any = None, **options: Any) -> None:
        """Refuse an artifact that is not what was written; the model is on the meta device yet, without values.

        Remembers which parameters the model keeps in another dtype, as the loader does.
        """
        # Imported late: it imports models of transformers, which may itself be being imported while this module is.
        from optimizer.integrity import check

        for directory in _directories(model, options.get("checkpoint_files") or ()):
            check(directory)
        plan = model._get_dtype_plan(dtype)
        self.plan = (build_glob_alternation(list(plan)), plan) if plan else None
        super().preprocess_model(model, dtype=dtype, **options)

    def get_weight_conversions(self) -> list[WeightConverter]:
        """What loads a weight that is one parameter: its stored names, and the operation that unpacks them."""
        return [Converter(names, name, [self.operation(self)]) for name, names in self.serialized_names.items()]

    def update_weight_conversions(self, weight_conversions: list[Any], model: Any) -> list[Any]:
        """The model's own converters, which merge or split weights, with the unpacking before.

        What they do not take is matched by the last part of its name: `weight`, or what else the model's matrices are
        called (experts' `gate_up_proj`).
        """
        matrices = {name.rpartition(".")[2] for name, value in model.named_parameters() if value.ndim >= _MATRIX}
        others = sorted(matrices - {"weight"})
        return [
            *map(self._unpacking, weight_conversions),
            *self.get_weight_conversions(),
            *(Converter(rf"(?<!\w){name}", name, [Unpack(self)]) for name in others),
        ]

    def _unpacking(self, conversion: Any) -> Any:
        if not isinstance(conversion, WeightConverter):
            return conversion
        converter = Converter(
            list(conversion._original_source_patterns),
            list(conversion._original_target_patterns),
            [Unpack(self, whole=False), *conversion.operations],
            conversion.force_cpu,
        )
        converter.scope_prefix, converter.base_model_prefix = conversion.scope_prefix, conversion.base_model_prefix
        return converter

    def dtype_of(self, model: Any, name: str) -> torch.dtype:
        """The dtype that a parameter is to have."""
        if self.plan is not None:
            (pattern, groups, _), plan = self.plan
            if match := pattern.search(name):
                planned: torch.dtype = plan[groups[match.lastgroup]]
                return planned
        dtype: torch.dtype = model.get_parameter_or_buffer(name).dtype
        return dtype


class PackedQuantizer(_Packed):
    """Loads a packed artifact as the plain model that the dense one would give."""

    serialized_names = {"weight": ["weight"]}  # noqa: RUF012 - the name and type that transformers reads
    operation = Unpack
    is_trainable = True

    def is_serializable(self) -> bool:
        """What is loaded is a plain model."""
        return True


class Packed8BitQuantizer(_Packed, Bnb8BitHfQuantizer):  # type: ignore[misc]
    """Loads a packed bitsandbytes artifact as `Linear8bitLt` layers."""

    operation = Unpack8Bit

    def __init__(self, quantization_config: PackedConfig, **options: Any) -> None:
        super().__init__(BitsAndBytesConfig(**(quantization_config.bitsandbytes or {})), **options)


class Packed4BitQuantizer(_Packed, Bnb4BitHfQuantizer):  # type: ignore[misc]
    """Loads a packed bitsandbytes artifact as `Linear4bit` layers."""

    operation = Unpack4Bit

    def __init__(self, quantization_config: PackedConfig, **options: Any) -> None:
        super().__init__(BitsAndBytesConfig(**(quantization_config.bitsandbytes or {})), **options)


def _directories(model: Any, files: Sequence[str]) -> list[Path]:
    """Where the files of a model lie, and what it was asked for by, if they are in a directory."""
    named = [Path(model.config.name_or_path)] if files else []
    return sorted({path for path in (*named, *(Path(file).parent for file in files)) if path.is_dir()})


def _suffix(bitsandbytes: dict[str, Any] | None) -> str:
    if bitsandbytes is None:
        return ""
    return "_8bit" if bitsandbytes.get("load_in_8bit") else "_4bit"


def _restored(
    stored: torch.Tensor, dtype: torch.dtype, shape: tuple[int, ...] | None, largest: int, name: str
) -> torch.Tensor:
    """The tensor that was stored; floats in `dtype`. PayloadError when it is not of `shape`, or beyond `largest`."""
    tensor = stored
    try:
        if is_payload(stored):
            found = restored_shape(stored)
            if math.prod(found) > largest:
                raise PayloadError(f"payload holds shape {found} for a parameter of {largest} values")
            tensor = unpack(stored.cpu(), shape, threads=cores()).to(stored.device)
        elif shape is not None and tuple(stored.shape) != shape:
            raise PayloadError(f"no payload, and of shape {tuple(stored.shape)}, not {shape}")
    except PayloadError as error:
        raise PayloadError(f"{name}: cannot be unpacked: {error}") from None
    return tensor.to(dtype) if tensor.is_floating_point() and dtype.is_floating_point else tensor


def _listed(tensors: Any) -> list[torch.Tensor]:
    return tensors if isinstance(tensors, list) else [tensors]


# On import, hence once, whichever module is imported first.
AUTO_QUANTIZATION_CONFIG_MAPPING[METHOD] = PackedConfig
AUTO_QUANTIZER_MAPPING[METHOD] = PackedQuantizer
AUTO_QUANTIZER_MAPPING[METHOD + "_8bit"] = Packed8BitQuantizer
AUTO_QUANTIZER_MAPPING[METHOD + "_4bit"] = Packed4BitQuantizer
