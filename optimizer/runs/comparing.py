"""Model directories against their original: the figures of a row, whoever made them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optimizer.data.calibration import measured
from optimizer.data.labels import gold
from optimizer.data.texts import DataSettings
from optimizer.errors import ModelError, as_optimizer_error
from optimizer.evaluation import size
from optimizer.evaluation.job import Environment, EvaluationSettings
from optimizer.evaluation.measure import Job, evaluate
from optimizer.formats import format_of
from optimizer.manifest import versions
from optimizer.model.checkpoint import Checkpoint, open_checkpoint, read_config
from optimizer.model.locate import ModelSettings, locate
from optimizer.model.shards import open_shards
from optimizer.processes.processor import described
from optimizer.rows.row import Row

_NAMED = 3  # weights, in a line that says which are lacking


def compare(
    original: str,
    optimized: Mapping[str, Path],
    cache: Path,
    data: DataSettings | None = None,
    settings: EvaluationSettings | None = None,
    environment: Environment | None = None,
) -> list[Row]:
    """A row for each directory in `optimized`, by name, measured as a run's artifact is.

    `cache` keeps the original's predictions. A directory that cannot be measured makes a failed row; raises an
    OptimizerError when it holds no model, or the original or the texts cannot be read.
    """
    source = locate(ModelSettings(path=original))
    checkpoint = open_checkpoint(source.directory)
    texts = measured(data or DataSettings(), is_demo=source.is_demo, calibrated=False)
    gold(texts, checkpoint.config)
    environment = environment or Environment()
    directories = {name: locate(ModelSettings(path=str(place))).directory for name, place in optimized.items()}
    for directory in directories.values():  # before the first is measured
        read_config(directory)
        if format_of(directory).holds_weights:
            open_shards(directory)
    rows = []
    for name, directory in directories.items():
        job = Job(
            original=checkpoint.directory,
            artifact=directory,
            fingerprint=checkpoint.fingerprint,
            task=checkpoint.task,
            data=texts.source,
            data_fingerprint=texts.fingerprint,
            settings=settings or EvaluationSettings(),
            environment=environment,
            cache=cache,
        )
        row = Row(
            run_id=name,
            status="ok",
            model=source.name,
            artifact=str(job.artifact),
            evaluation=job.settings.extent,
            device=environment.device,
            threads=environment.threads,
            processor=described(),
            torch_version=versions()["torch"],
            transformers_version=versions()["transformers"],
            original_fingerprint=checkpoint.fingerprint,
            data_fingerprint=texts.fingerprint,
            original_commit=source.commit,
        )
        rows.append(row.with_figures(_figures(checkpoint, job)))
    return rows


def _figures(checkpoint: Checkpoint, job: Job) -> dict[str, Any]:
    try:
        if lost := _lost(checkpoint, job.artifact):
            raise ModelError(
                f"{job.artifact}: lacks {len(lost)} of its model's weights, which would be random "
                f"({', '.join(lost[:_NAMED])}{', ...' if len(lost) > _NAMED else ''})"
            )
        return size.measure(checkpoint, job.artifact) | evaluate(job)
    except Exception as error:  # a stranger's files may hold anything
        return {"status": "failed", "error": str(as_optimizer_error(error))}


def _lost(original: Checkpoint, directory: Path) -> list[str]:
    """The parameters of the model in `directory` that only the original's files hold.

    Quantized models name their tensors as their method pleases, and graphs have none: none of theirs is looked for.
    """
    if read_config(directory).get("quantization_config") or not format_of(directory).holds_weights:
        return []
    optimized = open_checkpoint(directory)
    tied = optimized.ties

    def stored(checkpoint: Checkpoint) -> set[str]:
        return {tied.get(place.parameter, place.parameter) for place in checkpoint.places.values()}

    lost = stored(original) - stored(optimized)
    return [name for name in optimized.missing if tied.get(name, name) in lost]
