"""Model directories against their original: the figures of a row, whoever made them."""

from collections.abc import Mapping
from pathlib import Path

from optimizer import results
from optimizer.artifact.manifest import versions
from optimizer.checkpoint import fingerprint, open_checkpoint
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

    `cache` keeps the original's predictions. Raises an OptimizerError for whatever cannot be read or measured.
    """
    source = locate(ModelSettings(path=original))
    checkpoint = open_checkpoint(source.directory)
    texts = read(data or DataSettings(), is_demo=source.is_demo)
    check_labels(texts, checkpoint.config)
    environment = environment or Environment()
    rows = []
    for name, directory in optimized.items():
        job = Job(
            original=source.directory,
            artifact=locate(ModelSettings(path=str(directory))).directory,
            fingerprint=fingerprint(source.directory),
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
        rows.append(row | size.measure(checkpoint, job.artifact) | evaluate(job))
    return rows
