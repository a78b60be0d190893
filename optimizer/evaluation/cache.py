"""The original's predictions on disk, so that a sweep asks the original once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from optimizer import cached
from optimizer.evaluation.predict import Prediction

_LARGEST_BYTES = 2**30


class Recorder:
    """Collects predictions batch by batch, and writes them in the end; gives up above `largest` bytes."""

    def __init__(self, path: Path, largest: int = _LARGEST_BYTES) -> None:
        self._path = path
        self._left = largest
        self._tensors: dict[str, Tensor] | None = {}
        self._batches = 0

    def add(self, prediction: Prediction) -> bool:
        """Keep the next batch's prediction; False once they are too large, and nothing is kept."""
        for name, tensor in _named(self._batches, prediction):
            self._left -= tensor.nbytes
            if self._left < 0:
                self._tensors = None
            if self._tensors is not None:
                self._tensors[name] = tensor.cpu().contiguous()
        self._batches += 1
        return self._tensors is not None

    def read(self, batch: int) -> Prediction:
        """The prediction of the given batch."""
        assert self._tensors is not None
        return Prediction(self._tensors[f"{batch}.logits"], self._tensors.get(f"{batch}.decoder_ids"))

    def write(self) -> bool:
        """Store everything under one name at once; False if it was too large, OSError if it cannot be written."""
        if self._tensors is None:
            return False
        cached.write(self._path, self._tensors)
        return True


class Recorded:
    """Predictions in an open file, read one batch at a time."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._names = frozenset(file.keys())

    def read(self, batch: int) -> Prediction:
        """The prediction of the given batch."""
        ids = f"{batch}.decoder_ids"
        decoder_ids = self._file.get_tensor(ids) if ids in self._names else None
        return Prediction(self._file.get_tensor(f"{batch}.logits"), decoder_ids)


def recorded(path: Path) -> Recorded | None:
    """The predictions stored at `path`; None where there are none or they are damaged."""
    file = cached.opened(path)
    return None if file is None else Recorded(file)


def _named(batch: int, prediction: Prediction) -> Iterator[tuple[str, Tensor]]:
    yield f"{batch}.logits", prediction.logits
    if prediction.decoder_ids is not None:
        yield f"{batch}.decoder_ids", prediction.decoder_ids
