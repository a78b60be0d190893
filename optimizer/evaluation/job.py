"""What is to be measured: plain values that go to the measuring process."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from optimizer.data import calibration
from optimizer.data.texts import DataSettings, Texts
from optimizer.errors import DataError
from optimizer.model.task import Task
from optimizer.processes.cores import cores
from optimizer.settings import Settings

_QUICK_EXAMPLES, _QUICK_REPETITIONS = 256, 3  # of conf/evaluation/quick.yaml


class Grid(Settings):
    """Every one of `batch_sizes` with every one of `lengths`, in tokens; the first of both fill the row's columns."""

    batch_sizes: list[Annotated[int, Field(ge=1)]] = Field(min_length=1)
    lengths: list[Annotated[int, Field(ge=1)]] = Field(min_length=1)


class EvaluationSettings(Settings):
    """What is measured: agreement on `examples` texts (null: all, 0: none), latency over `repetitions` (0: none).

    Latency is that of `batch_size` texts of `length` tokens, or of each cell of a `grid`; `stream` is how many texts,
    at their own lengths, are run through both models to see how many a second each answers (0: none).
    """

    examples: int | None = Field(default=None, ge=0)
    batch_size: int = Field(default=8, ge=1)
    length: int = Field(default=128, ge=1)
    warmup: int = Field(default=2, ge=0)
    repetitions: int = Field(default=10, ge=0)
    grid: Grid | None = None
    stream: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _timed(self) -> Self:
        if (self.grid or self.stream) and not self.repetitions:
            raise ValueError("grid and stream are timed, which repetitions: 0 forbids; write repetitions: 10")
        return self

    @property
    def extent(self) -> Literal["quick", "full"] | None:
        """Whether so little is asked for that nobody should rely on it; None where nothing is."""
        if self.examples == 0 and self.repetitions == 0:
            return None
        few_examples = self.examples is not None and 0 < self.examples <= _QUICK_EXAMPLES
        return "quick" if few_examples or 0 < self.repetitions <= _QUICK_REPETITIONS else "full"

    def values(self) -> dict[str, Any]:
        """The keys of a recipe file; those that came later only where they are set, so that no run id follows them."""
        unset = {name for name in ("grid", "stream") if not getattr(self, name)}
        return self.model_dump(exclude=unset)


class Environment(Settings):
    """Where and how a run computes: `threads` defaults to the cores this process may use."""

    device: str = Field(default="cpu", pattern=r"^(cpu|cuda(:\d+)?)$")
    threads: int = Field(default_factory=cores, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**32)


@dataclass(frozen=True)
class Job:
    """An artifact to be measured against its original, whose `fingerprint` is given.

    `data` names the texts, of which those to measure on have the fingerprint `data_fingerprint`: whoever measures reads
    them; `calibrated` says that others of them may have served for calibration. `cache` is the folder where the
    original's predictions are kept from job to job; `changes` that in which the texts whose answers change are listed.
    """

    original: Path
    artifact: Path
    fingerprint: str
    task: Task
    data: DataSettings
    data_fingerprint: str
    settings: EvaluationSettings
    environment: Environment
    cache: Path
    calibrated: bool = False
    changes: Path | None = None

    def read_texts(self) -> Texts:
        """The texts; DataError when they are no longer what they were when the job was made."""
        texts = calibration.measured(self.data, is_demo=False, calibrated=self.calibrated)
        if texts.fingerprint != self.data_fingerprint:
            raise DataError(f"{texts.name}: has changed since the command began; run the command again")
        return texts
