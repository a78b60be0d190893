"""Load an artifact, or any model directory, as the task that its config.json names."""

import json
from pathlib import Path
from typing import Any

import torch

from optimizer.errors import ModelError
from optimizer.model.task import Task, auto_class, task_of


def load(directory: str | Path, **options: Any) -> Any:
    """The model in `directory`, ready for inference; `options` go to `from_pretrained` (dtype, device_map, …).

    Raises ModelError when there is no readable config.json.
    """
    config = Path(directory) / "config.json"
    try:
        values = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{config}: {error}") from None
    # Unless told otherwise, never ask whether to run code that a stranger's model brings along.
    options.setdefault("trust_remote_code", False)
    return auto_class(task_of(values)).from_pretrained(directory, **options).eval()


def on_meta(directory: Path, task: Task) -> Any:
    """The model of a directory without any values: its configuration, its class and its shapes, at no memory."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(directory, trust_remote_code=False)
    with torch.device("meta"):
        return auto_class(task).from_config(config, trust_remote_code=False)
