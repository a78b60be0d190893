"""A model directory as a transformers model: ready for inference, or without its values."""

from pathlib import Path
from typing import Any

from optimizer.model import internals
from optimizer.model.checkpoint import read_config, refuse_outside
from optimizer.model.task import Task, auto_class, task_of


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


def on_meta(directory: Path, task: Task) -> Any:
    """The model of a directory without any values: its configuration, its class and its shapes, at no memory.

    Raises ModelError where transformers cannot build it without code that the directory brings along.
    """
    return internals.on_meta(directory, auto_class(task))
