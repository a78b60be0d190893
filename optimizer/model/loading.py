"""A model directory as a transformers model: ready for inference, or without its values."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from optimizer.model import internals
from optimizer.model.checkpoint import read_config
from optimizer.model.shards import refuse_outside
from optimizer.model.task import Task, auto_class, task_of

GENERATION = "generation_config.json"


def load(directory: str | Path, **options: Any) -> Any:
    """The model in `directory` by the task that its config.json names, ready for inference.

    `options` go to `from_pretrained` (dtype, device_map, ...). Raises ModelError when there is no readable config.json,
    and for an index that names files outside the directory.
    """
    # Unless told otherwise, never ask whether to run code that a stranger's model brings along.
    options.setdefault("trust_remote_code", False)
    task = task_of(read_config(Path(directory)))
    refuse_outside(Path(directory))
    return auto_class(task).from_pretrained(directory, **options).eval()


def from_state(directory: Path, config: Mapping[str, Any], state: Mapping[str, torch.Tensor], **options: Any) -> Any:
    """The model by the values of a config.json and tensors by their names in a checkpoint, ready for inference.

    Small files that loading reads too are those in `directory`; `options` as for `load`.
    """
    from transformers import GenerationConfig

    bare = on_meta(directory, task_of(config))
    settings = type(bare.config).from_dict(dict(config))
    options.setdefault("dtype", getattr(torch, config.get("dtype") or "float32"))
    # Its own loading, rather than load_state_dict: it renames, merges and ties as from a directory.
    model = type(bare).from_pretrained(None, config=settings, state_dict=dict(state), **options)
    if (directory / GENERATION).exists() and model.can_generate():
        model.generation_config = GenerationConfig.from_pretrained(directory)
    return model.eval()


def write_config(directory: Path, config: Mapping[str, Any]) -> None:
    """Write config.json."""
    (directory / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def on_meta(directory: Path, task: Task) -> Any:
    """The model of a directory without any values: its configuration, its class and its shapes, at no memory.

    Raises ModelError where transformers cannot build it without code that the directory brings along.
    """
    return internals.on_meta(directory, auto_class(task))
