"""The front matter of a card, by which the hub finds an artifact: what it was made from, and what it reached."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optimizer.errors import ModelError
from optimizer.formats import FORMATS
from optimizer.manifest import Manifest
from optimizer.model.checkpoint import read_config
from optimizer.model.task import Task, task_of
from optimizer.rows.row import FIGURES, Row

ORIGINAL_CARD = "README.original.md"
"""The original's own card, in an artifact."""

_OURS = "transformer-optimizer"
_KEPT = ("license", "license_name", "license_link", "language", "library_name", "pipeline_tag", "tags")
_PIPELINES: dict[Task, str] = {
    "sequence-classification": "text-classification",
    "token-classification": "token-classification",
    "question-answering": "question-answering",
    "image-classification": "image-classification",
    "audio-classification": "audio-classification",
    "speech-seq2seq": "automatic-speech-recognition",
    "zero-shot-image-classification": "zero-shot-image-classification",
    "seq2seq-lm": "text2text-generation",
    "masked-lm": "fill-mask",
    "causal-lm": "text-generation",
    "encoder": "feature-extraction",
}


def front_matter(directory: Path, manifest: Manifest, recipe: Mapping[str, Any], figures: Row | None) -> Any:
    """The ModelCardData of an artifact: what its original's card says that holds for it too, and what was measured.

    Of an original that is not from the hub there is no base model.
    """
    from huggingface_hub import ModelCardData

    kept = _original(directory / ORIGINAL_CARD)
    task = _pipeline(directory) or kept.get("pipeline_tag")
    results = _results(figures, task) if figures and task else []
    base = {"base_model": manifest.original, "base_model_relation": "quantized"} if manifest.original_commit else {}
    only_ours = FORMATS[manifest.format].unpacks_to is not None
    given: dict[str, Any] = {
        **kept,
        **base,
        "library_name": _OURS if only_ours else kept.get("library_name", "transformers"),
        "pipeline_tag": kept.get("pipeline_tag", task),
        "tags": [*kept.get("tags", []), _OURS, manifest.format],
        **({"model_name": f"{manifest.original}, {recipe['name']}", "eval_results": results} if results else {}),
    }
    return ModelCardData(**given)


def _original(card: Path) -> dict[str, Any]:
    """What is kept of a card's front matter, as far as it is what the hub would take; nothing of one without."""
    from huggingface_hub import metadata_load

    try:
        found = metadata_load(card) or {}
    except Exception:  # a stranger's file, if it is there at all
        return {}
    tags = found.get("tags")
    found["tags"] = [tag for tag in (tags if isinstance(tags, list) else [tags]) if isinstance(tag, str)]
    return {key: found[key] for key in _KEPT if _is_words(found.get(key))}


def _is_words(value: Any) -> bool:
    words = value if isinstance(value, list) else [value]
    return bool(words) and all(isinstance(word, str) and word for word in words)


def _pipeline(directory: Path) -> str | None:
    try:
        return _PIPELINES[task_of(read_config(directory))]
    except ModelError:  # a task of which only the weights are optimized
        return None


def _results(figures: Row, task: str) -> list[Any]:
    """The figures that were measured, on the texts that they were measured on."""
    from huggingface_hub import EvalResult

    data = figures.data or "none"
    # Of a dataset of the hub its name; of other texts, which have none there, words as it takes them.
    dataset = re.sub(r"[^\w./-]+", "-", data.partition(" (")[0])
    values = figures.values()
    return [
        EvalResult(
            task_type=task,
            dataset_type=dataset,
            dataset_name=data,
            metric_type=column,
            metric_name=figure.title,
            metric_value=values[column],
        )
        for column, figure in FIGURES.items()
        if figure.title and values[column] is not None and math.isfinite(values[column])
    ]
