"""What is to be measured: plain values that go to the measuring process."""

from dataclasses import dataclass
from pathlib import Path

from optimizer.evaluation.texts import Texts
from optimizer.recipe import Environment, EvaluationSettings
from optimizer.task import Task


@dataclass(frozen=True)
class Job:
    """An artifact to be measured against its original, whose `fingerprint` is given.

    `cache` is the folder where the original's predictions are kept from job to job.
    """

    original: Path
    artifact: Path
    fingerprint: str
    task: Task
    texts: Texts
    settings: EvaluationSettings
    environment: Environment
    cache: Path
