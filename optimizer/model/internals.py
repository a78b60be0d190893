"""The names of transformers that it does not promise to keep, used here and in the plug-in of `packing` alone."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from optimizer.errors import ModelError, first_line


def on_meta(directory: Path, auto_class: Any) -> PreTrainedModel:
    """The model of a directory, by an AutoModel class, on the meta device; see `loading.on_meta`."""
    try:
        config = AutoConfig.from_pretrained(directory, trust_remote_code=False)
        # How it attends is no matter without values, and what config.json says of it need not be there: see `packing`.
        how = {"attn_implementation": "eager", "trust_remote_code": False}
        with torch.device("meta"):
            model: PreTrainedModel = auto_class.from_config(config, **how)
    except Exception as error:
        raise ModelError(f"{directory}: transformers cannot build this model ({first_line(error)})") from None
    return model


def from_state(model: PreTrainedModel, config: Mapping[str, Any], state: Mapping[str, torch.Tensor]) -> PreTrainedModel:
    """A model of the class of `model`, by the values of a config.json and of a checkpoint, all floats in float32."""
    values = type(model.config).from_dict(dict(config))
    # Its own loading, rather than load_state_dict: it renames, merges and ties as from a directory.
    loaded: PreTrainedModel = type(model).from_pretrained(
        None, config=values, state_dict=dict(state), dtype=torch.float32
    )
    return loaded.eval()


def renamed(model: PreTrainedModel, names: Iterable[str]) -> dict[str, str]:
    """For each checkpoint tensor that the model knows, the name in the model of what it is loaded into."""
    # Imported late: what only loads meets releases that have other names.
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    conversions = get_model_conversion_mapping(model)
    renamings = [entry for entry in conversions if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in conversions if isinstance(entry, WeightConverter)]
    state = model.state_dict()
    found = {}
    for name in names:
        parameter, _ = rename_source_key(name, renamings, converters, model.base_model_prefix, state)
        if parameter in state:
            found[name] = parameter
    return found


def architectures(auto_class: Any) -> set[str]:
    """The names of the classes that an AutoModel class loads."""
    names: set[str] = set()
    for value in auto_class._model_mapping._model_mapping.values():
        names.update((value,) if isinstance(value, str) else value)
    return names


def ties(model: PreTrainedModel) -> dict[str, str]:
    """The parameters that are another one under a second name, each with the name of that one."""
    return dict(model.all_tied_weights_keys)


def precise(model: PreTrainedModel) -> tuple[str, ...]:
    """Patterns of the modules that the model keeps in float32."""
    return tuple(sorted(model._keep_in_fp32_modules or ()))


def is_left_out(module: str, patterns: Sequence[str]) -> bool:
    """Whether a quantizer that is told to skip `patterns` leaves a module as it is."""
    from transformers.quantizers.quantizers_utils import should_convert_module

    return not should_convert_module(module, list(patterns))


def is_replaced(module: nn.Module) -> bool:
    """Whether a quantizer puts a layer of its own in the place of a linear module: not of a Linear's subclasses.

    nn.MultiheadAttention, for one, computes with its `out_proj`'s weight itself.
    """
    return isinstance(module, Conv1D) or type(module) is nn.Linear


def are_transposed(experts: nn.Module) -> bool:
    """Whether experts in one tensor are [experts, inputs, outputs], as GPT-OSS has them, not as in a Linear."""
    return bool(getattr(experts, "is_transposed", False))


def exactly(module: str) -> str:
    """The pattern that means this module alone to `is_left_out`, not those whose names end in it or begin with it."""
    return f"^{re.escape(module)}$"
