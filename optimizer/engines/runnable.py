"""A graph that is called like the transformers model that it stands for, whatever engine runs it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from optimizer.engines import answering
from optimizer.engines.answering import Reader, Text
from optimizer.errors import EvaluationError

Array = NDArray[Any]
Arrays = Mapping[str, Array]

_PADDED = {"start_logits": torch.finfo(torch.float32).min, "end_logits": torch.finfo(torch.float32).min}
"""What an answer holds at padding that no graph has read; 0 where it is not named: nobody may choose it as a span."""


SHARED_TOKENS = 512
"""Tokens of a batch, padding included, from which streams share it: for fewer, waking them costs more than it saves."""


class Runnable(ABC):
    """Called with transformers' inputs as torch tensors `[batch, length]`; gives a ModelOutput of torch tensors.

    It may be given to `transformers.pipeline` beside a tokenizer. Inputs that the graph does not take are ignored.
    """

    main_input_name = "input_ids"
    device = torch.device("cpu")
    dtype = torch.float32
    directory: Path | None = None
    """Where it was loaded from, if it was: there lies its tokenizer."""

    def __init__(self, config: Any, inputs: Sequence[str], outputs: Sequence[str], parts: int) -> None:
        self._reader: Reader | None = None
        self.config, self.inputs, self.outputs, self.parts = config, tuple(inputs), tuple(outputs), parts
        # Pipelines know the models of their task by the name of the class.
        if architectures := getattr(config, "architectures", None):
            self.__class__ = type(architectures[0], (type(self),), {"__doc__": type(self).__doc__})

    @abstractmethod
    def run(self, parts: Sequence[Arrays]) -> list[list[Array]]:
        """The outputs, in their order, of each part of a batch, all parts at once."""

    def __call__(self, **inputs: Any) -> Any:
        """The model's answer; a missing `attention_mask` is all ones, missing `token_type_ids` are all zeros."""
        return self.forward(**inputs)

    def forward(self, **inputs: Any) -> Any:
        """The same as calling it, because pipelines look for it."""
        from transformers.utils import ModelOutput

        tensors = self._complete(inputs)
        rows, length = tensors[self.inputs[0]].shape[:2]
        parts = self.shared_by(tensors, self.streams(tensors))
        answers = self.run([cut(tensors, part) for part in parts])
        joined = [_joined(name, [answer[place] for answer in answers], parts, rows, length)
                  for place, name in enumerate(self.outputs)]  # fmt: skip
        return ModelOutput(zip(self.outputs, map(torch.from_numpy, joined), strict=True))

    def tune(self, **inputs: Any) -> str | None:
        """Try which way to run batches of this shape is fastest, and use it from now on; None where there is one way.

        What is tried is run on `inputs`. Gives the way that was chosen, in words.
        """
        return None

    def streams(self, tensors: Arrays) -> int:
        """In how many parts at most a batch is run at once."""
        rows, length = tensors[self.inputs[0]].shape[:2]
        return self.parts if rows * length >= SHARED_TOKENS else 1

    def shared_by(self, tensors: Arrays, streams: int) -> list["Part"]:
        """The parts of a batch for so many streams; one part where the graph takes no mask."""
        mask = tensors.get("attention_mask")
        rows, length = tensors[self.inputs[0]].shape[:2]
        return [(slice(0, rows), length)] if mask is None else split(mask, streams)

    def answer(self, texts: Iterable[Text], batch_size: int = 32, top_k: int | None = 1) -> list[Any]:
        """What the model says of texts, in their order, as transformers' pipelines say it.

        Of texts or pairs {"label": …, "score": …}; with another `top_k` than 1 a list of so many, best first, None for
        all. Where tokens have labels, a list of them. Of pairs (question, context) {"answer", "start", "end", "score"}.
        Texts are sorted by length and read in batches of at most `batch_size` and of a bounded number of tokens; what
        is longer than the model takes is cut. Raises EvaluationError where the model has no such answers.
        """
        if self.directory is None:
            raise EvaluationError("answer: this graph has no tokenizer beside it; write optimizer.load(DIRECTORY)")
        if self._reader is None:
            self._reader = answering.reader(self.directory, self.inputs)
        return answering.answer(self, self._reader, texts, batch_size, top_k)

    def to(self, *_: Any, **__: Any) -> "Runnable":
        """Itself: it stays where its engine runs."""
        return self

    def eval(self) -> "Runnable":
        """Itself: a graph has no other mode."""
        return self

    def can_generate(self) -> bool:
        """Whether it writes text: no."""
        return False

    def _complete(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        if inputs.get(self.main_input_name) is None:
            raise TypeError(f"{self.main_input_name}: is missing; this model takes {', '.join(self.inputs)}")
        ids = torch.as_tensor(inputs[self.main_input_name])
        missing: dict[str, Callable[[Tensor], Tensor]] = {
            "attention_mask": torch.ones_like,
            "token_type_ids": torch.zeros_like,
        }
        complete: dict[str, Array] = {}
        for name in self.inputs:
            value = inputs.get(name)
            tensor = missing[name](ids) if value is None else torch.as_tensor(value)
            complete[name] = tensor.to("cpu", torch.int64).contiguous().numpy()
        return complete


Part = tuple[Array | slice, int]
"""Rows of a batch, and the length that they have to be read to."""


def cut(tensors: Arrays, part: Part) -> Arrays:
    """A part's rows of all inputs, as far as they have to be read."""
    chosen, end = part
    return {name: value[chosen, :end] for name, value in tensors.items()}


def split(mask: Array, parts: int) -> list[Part]:
    """The rows of a batch in at most `parts` parts of about equal work.

    `mask` is `[batch, length]`. Rows of like length come together, and what is padding in a whole part is cut off
    at its end, so nothing is computed for it.
    """
    rows, length = mask.shape
    if mask.all():
        count = max(1, min(parts, rows))
        return [(slice(rows * part // count, rows * (part + 1) // count), length) for part in range(count)]
    ends = np.maximum((mask != 0) * np.arange(1, length + 1), 1).max(axis=1)
    if min(parts, rows) == 1:
        return [(slice(0, rows), int(ends.max()))]
    order = np.argsort(ends, kind="stable")
    lengths = ends[order]
    return [(np.sort(order[first:last]), int(lengths[last - 1])) for first, last in _bounds(lengths, parts)]


def _bounds(lengths: Array, parts: int) -> list[tuple[int, int]]:
    """Where to cut ascending lengths so that the largest part, rows times longest, is smallest."""
    rows = len(lengths)
    if min(parts, rows) == 1:
        return [(0, rows)]
    best = min(range(1, rows), key=lambda cut: max(cut * lengths[cut - 1] / (parts - 1), (rows - cut) * lengths[-1]))
    return [*_bounds(lengths[:best], parts - 1), (best, rows)]


def _joined(name: str, answers: Sequence[Array], parts: Sequence[Part], rows: int, length: int) -> Array:
    """One array of the whole batch from those of its parts, in the order of its rows."""
    first = answers[0]
    tokenwise = name in _PADDED or name == "last_hidden_state" or (name == "logits" and first.ndim == 3)
    shape = (rows, length, *first.shape[2:]) if tokenwise else (rows, *first.shape[1:])
    joined = np.full(shape, _PADDED.get(name, 0), dtype=first.dtype)
    for (chosen, end), answer in zip(parts, answers, strict=True):
        if tokenwise:
            joined[chosen, :end] = answer
        else:
            joined[chosen] = answer
    return joined
