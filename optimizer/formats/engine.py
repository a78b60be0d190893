"""What the formats share that an engine runs: a graph of the staged model, in place of weights under their names."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import ClassVar, Self

import torch
from pydantic import Field, model_validator

from optimizer.engines.reduce import Exported, reduce, unlike
from optimizer.engines.runnable import Runnable
from optimizer.errors import ArtifactError, StageError
from optimizer.formats.format import Context, Stored
from optimizer.manifest import Listed
from optimizer.model.examples import FEW
from optimizer.model.loading import write_config
from optimizer.model.outline import Entry, Outline
from optimizer.model.task import Task
from optimizer.model.weight import Codes
from optimizer.settings import Settings
from optimizer.stages.staging import Staged

TASKS: tuple[Task, ...] = ("sequence-classification", "token-classification", "question-answering", "encoder")
_EXAMPLE = (2, 8)  # texts x tokens that a model is traced with; a graph takes any
_FLOAT_BITS = 32
_FLOAT = 1e-3  # of the largest answer: float32 rounds by millionths of it, another function is far above


class EngineSettings(Settings):
    """`precision` of the graph; `int8` is calibrated. `exclude` are patterns of the operations that stay in float.

    `reduce` leaves out the work that answers do not need, where that changes none. `agreement` is the share of the
    calibration texts that an int8 graph has to answer as the float graph does: as many operations are in float again.
    """

    precision: str
    exclude: list[str] = Field(default_factory=list)
    reduce: bool = True
    agreement: float | None = Field(default=None, gt=0, le=1)

    @model_validator(mode="after")
    def _of_int8(self) -> Self:
        if self.agreement is not None and self.precision != "int8":
            raise ValueError(f"agreement is for precision: int8, not for {self.precision}; remove one of the two")
        return self


class Engine:
    """A format that stores a graph; what makes it, reads it and runs it is the engine's own."""

    name: str
    packages: tuple[str, ...]
    extra: str | None
    how_to_load: str
    settings: type[Settings] | None
    casts = True
    unpacks_to: str | None = None
    holds_weights = False
    files: ClassVar[tuple[str, ...]]

    def bits(self, entry: Entry) -> float:
        """Those of a float: which matrices the engine stores in fewer is known once it has."""
        return _FLOAT_BITS

    def calibrated(self, settings: Settings | None) -> bool:
        """Whether activations are to be in 8 bits."""
        assert isinstance(settings, EngineSettings)
        return settings.precision == "int8"

    def check(self, original: Outline) -> None:
        """Raise StageError for a model that has no graph here: what generates text, sees or hears."""
        if original.task not in TASKS:
            raise StageError(
                f"format: {self.name} runs encoders ({', '.join(TASKS)}), not {original.task}; write recipe=compact"
            )

    def write(self, staged: Staged, directory: Path, context: Context) -> Listed | None:
        """Write the graph and config.json; the whole model is in memory."""
        assert isinstance(context.settings, EngineSettings)
        model = staged.materialise().eval()
        task = staged.outline.task
        module = reduce(model, task, context.log) if context.settings.reduce else Exported(model, task)
        self.write_graph(module, staged, directory, context)
        config = dict(staged.outline.config)
        for key in ("_name_or_path", "quantization_config", "torch_dtype"):
            config.pop(key, None)
        write_config(directory, config | {"dtype": "float32"})
        return None

    def write_graph(self, module: Exported, staged: Staged, directory: Path, context: Context) -> None:
        """Convert, quantize and write."""
        raise NotImplementedError

    def stored(self, directory: Path, names: Collection[str]) -> Stored:
        """What its files hold: of the graph's constants its matrices, in whatever type they are stored."""
        values = zeros = 0
        for matrix in self.matrices(directory):
            values, zeros = values + matrix.numel(), zeros + int((matrix == 0).sum())
        return Stored(sum((directory / name).stat().st_size for name in self.files), values, zeros)

    def matrices(self, directory: Path) -> Iterator[torch.Tensor]:
        """The constants with two axes or more that are longer than 1: no scales."""
        raise NotImplementedError

    def plain(self, directory: Path) -> Iterator[tuple[str, torch.Tensor]]:
        """None: a graph has no weights by their names."""
        raise ArtifactError(f"{directory}: a graph holds no weights by their names")

    def unpack(self, directory: Path, output: Path) -> tuple[set[str], Listed | None]:
        """Only for a format that unpacks to another."""
        raise NotImplementedError


def example(module: Exported) -> dict[str, torch.Tensor]:
    """Inputs of the kind that a module takes, `[texts, tokens]`."""
    ids = torch.full(_EXAMPLE, 5)
    whole = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    return {name: whole[name] for name in module.inputs}


def check_graph(graph: Runnable, module: Exported, format_: str) -> None:
    """Raise ArtifactError for a float graph that does not answer as the module that it was converted from.

    Tracing a model keeps what it did for one example: some then fail at another shape, some answer something else.
    """
    failure: Exception | None = None
    try:
        difference = unlike(module, graph)
        fault = "" if difference <= _FLOAT else f"answers otherwise than the model, by {difference:.0e} of their size"
    except Exception as error:  # whatever the engine meets
        failure, fault = error, "fails at other numbers of texts and tokens than it was traced with"
    if fault:
        kind = type(module.model).__name__
        raise ArtifactError(f"format: an {format_} graph of {kind} {fault}; write recipe=compact") from failure


def staged_codes(staged: Staged) -> list[Codes]:
    """The codes that the stages left, of all matrices."""
    weights = (weight for shard in staged.original.shards for weight in staged.stream(shard))
    return [weight.codes for weight in weights if weight.codes is not None]


def calibration(context: Context) -> list[dict[str, torch.Tensor]]:
    """The texts to calibrate on; none where the format is not calibrated."""
    if context.calibration is None:
        return []
    examples = context.calibration.examples()[:FEW]
    context.log(f"calibrated on {len(examples)} texts")
    return examples
