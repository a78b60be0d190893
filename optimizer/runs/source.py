"""The model and the texts that runs start from: opened once in a command, however many runs there are."""

from typing import Any

from optimizer.data.texts import DataSettings, Texts, check_labels, read
from optimizer.errors import ModelError, OptimizerError
from optimizer.model.checkpoint import Checkpoint, fingerprint, open_checkpoint, stamps
from optimizer.model.locate import ModelSettings, Original, locate


class Source:
    """An original and its texts as they were when they were opened; `has_labels` of this model for each text.

    To another process go paths, settings and fingerprints: there the headers are read again when first asked for, and
    refused if the original is not the same. `data` gives the texts again, to whoever measures.
    """

    def __init__(self, original: Original, checkpoint: Checkpoint, texts: Texts) -> None:
        self.original = original
        self.fingerprint = checkpoint.fingerprint
        self.stamps = checkpoint.stamps
        self.data = texts.source
        self.data_fingerprint = texts.fingerprint
        self.has_labels = check_labels(texts, checkpoint.config) is not None
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

    def of(self, model: ModelSettings, data: DataSettings) -> Source:
        """The source that these settings name; raises an OptimizerError when something is missing or damaged."""
        key = f"{model.model_dump_json()} {data.model_dump_json()}"
        if key not in self._found:
            try:
                self._found[key] = _open(model, data)
            except OptimizerError as error:
                self._found[key] = error
        found = self._found[key]
        if isinstance(found, OptimizerError):
            raise found
        return found


def _open(model: ModelSettings, data: DataSettings) -> Source:
    original = locate(model)
    checkpoint = open_checkpoint(original.directory)
    return Source(original, checkpoint, read(data, is_demo=original.is_demo))
