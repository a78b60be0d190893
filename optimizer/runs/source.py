"""The model and the texts that runs start from: opened once in a command, however many runs there are."""

from typing import Any

from optimizer.data.calibration import Calibration, measured, share_out
from optimizer.data.labels import gold
from optimizer.data.texts import DataSettings, Texts
from optimizer.errors import ModelError, OptimizerError
from optimizer.model.checkpoint import Checkpoint, open_checkpoint
from optimizer.model.directory import fingerprint, stamps
from optimizer.model.locate import ModelSettings, Original, locate


class Source:
    """An original and its texts as they were when they were opened; `has_labels` of this model for each text,
    `has_groups` of texts.

    There are `examples` texts to measure on, of which so many are `different`.

    To another process go paths, settings and fingerprints: there the headers are read again when first asked for, and
    refused if the original is not the same. `data` gives the texts again, to whoever measures; `calibration` those to
    calibrate on, if recipes need any, of which `dropped` were left out because they are measured on.
    """

    def __init__(
        self,
        original: Original,
        checkpoint: Checkpoint,
        texts: Texts,
        calibration: Calibration | None = None,
        dropped: int = 0,
    ) -> None:
        self.original = original
        self.fingerprint = checkpoint.fingerprint
        self.stamps = checkpoint.stamps
        self.data = texts.source
        self.data_fingerprint = texts.fingerprint
        self.examples = len(texts.texts)
        self.different = len(set(texts.texts))
        self.has_labels = gold(texts, checkpoint.config) is not None
        self.has_groups = texts.groups is not None
        self.calibration = calibration
        self.dropped = dropped
        self._checkpoint: Checkpoint | None = checkpoint

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_checkpoint": None}

    @property
    def checkpoint(self) -> Checkpoint:
        """The original's headers; ModelError if it has changed."""
        if self._checkpoint is None:
            self.check_unchanged()
            self._checkpoint = open_checkpoint(self.original.directory)
            # What has just been checked need not be computed anew from files of any size.
            vars(self._checkpoint).update(fingerprint=self.fingerprint, stamps=self.stamps)
        return self._checkpoint

    def check_unchanged(self) -> None:
        """Raise ModelError when the original is not what it was: a sweep may have waited for days."""
        directory = self.original.directory
        # Another machine's copy may have other times.
        if stamps(directory) != self.stamps and fingerprint(directory) != self.fingerprint:
            raise ModelError(f"{directory}: has changed since the command began; run the command again")


class Sources:
    """The sources of one command: each is opened once, and fails once."""

    def __init__(self) -> None:
        self._found: dict[str, Source | OptimizerError] = {}

    def of(self, model: ModelSettings, data: DataSettings, *, calibrated: bool = False) -> Source:
        """The source that these settings name; raises an OptimizerError when something is missing or damaged.

        `calibrated` says that a recipe needs texts to calibrate on.
        """
        key = f"{model.model_dump_json()} {data.model_dump_json()} {calibrated}"
        if key not in self._found:
            try:
                self._found[key] = _open(model, data, calibrated)
            except OptimizerError as error:
                self._found[key] = error
        found = self._found[key]
        if isinstance(found, OptimizerError):
            raise found
        return found


def _open(model: ModelSettings, data: DataSettings, calibrated: bool) -> Source:
    original = locate(model)
    checkpoint = open_checkpoint(original.directory)
    if not calibrated:
        return Source(original, checkpoint, measured(data, is_demo=original.is_demo, calibrated=False))
    shared = share_out(data, is_demo=original.is_demo)
    others = shared.calibration
    calibration = Calibration(shared.measured.source, others.fingerprint, len(others.texts))
    return Source(original, checkpoint, shared.measured, calibration, shared.dropped)
