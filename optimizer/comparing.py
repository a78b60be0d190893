"""Model directories against their original: the figures of a row, whoever made them."""

from collections.abc import Mapping
from pathlib import Path

from optimizer import results
from optimizer.artifact.manifest import versions
from optimizer.checkpoint import Checkpoint, open_checkpoint, open_shards, read_config
from optimizer.errors import OptimizerError
from optimizer.evaluation import size
from optimizer.evaluation.measure import Job, evaluate
from optimizer.evaluation.texts import check_labels, read
from optimizer.locate import locate
from optimizer.recipe import DataSettings, Environment, EvaluationSettings, ModelSettings
from optimizer.results import Row


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
    texts = read(data or DataSettings(), is_demo=source.is_demo)
    check_labels(texts, checkpoint.config)
    environment = environment or Environment()
    directories = {name: locate(ModelSettings(path=str(place))).directory for name, place in optimized.items()}
    for directory in directories.values():  # before the first is measured
        open_shards(directory)
        read_config(directory)
    rows = []
    for name, directory in directories.items():
        job = Job(
            original=source.directory,
            artifact=directory,
            fingerprint=checkpoint.fingerprint,
            task=checkpoint.task,
            texts=texts,
            settings=settings or EvaluationSettings(),
            environment=environment,
            cache=cache,
        )
        row: Row = dict.fromkeys(results.COLUMNS)
        row |= {"run_id": name, "status": "ok", "model": source.name, "artifact": str(job.artifact)}
        row |= {"device": environment.device, "threads": environment.threads}
        row |= {"torch_version": versions()["torch"], "transformers_version": versions()["transformers"]}
        rows.append(row | _figures(checkpoint, job))
    return rows


def _figures(checkpoint: Checkpoint, job: Job) -> Row:
    try:
        return size.measure(checkpoint, job.artifact) | evaluate(job)
    except OptimizerError as error:
        return {"status": "failed", "error": str(error)}
