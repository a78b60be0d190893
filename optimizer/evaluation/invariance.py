"""Whether an answer depends on its neighbours: the same texts alone, then in a batch and padded."""

import math

import torch
import transformers
from torch import Tensor
from torch.nn.functional import pad

from optimizer.data.tokens import TokenInputs
from optimizer.evaluation import agreement
from optimizer.evaluation.inputs import Batch, length, mixed
from optimizer.evaluation.job import Job
from optimizer.evaluation.models import Side
from optimizer.evaluation.predict import answers_words, decision, predict, valid
from optimizer.evaluation.tally import Figures

_TEXTS = 64
_PADDING = 8  # tokens beyond the longest text, as far as the model takes them


def measure(job: Job, artifact: Side) -> Figures:
    """The row's `batch_invariance` and `batch_changed`, on a seeded sample of at most 64 of the job's examples.

    The first is the largest difference of a logit, as a share of the largest logit; the second the share of answers
    that change. Nothing is measured for a model that decides on no label, or whose labels are a vocabulary.
    """
    # The original's: what an artifact decides is what its original does.
    decides = decision(job.task, transformers.AutoConfig.from_pretrained(job.original, trust_remote_code=False))
    if decides not in ("class", "set") or answers_words(job.task):
        return {}
    inputs = artifact.inputs
    asked = job.settings.examples
    examples = inputs.examples(_TEXTS if asked is None else min(asked, _TEXTS))
    alone = {
        position: predict(job.task, artifact.model, batch.inputs).logits
        for batch in mixed(examples, 1, inputs.pad_id)
        for position in batch.positions
    }
    size, width = max(job.settings.batch_size, 2), 0
    if isinstance(inputs, TokenInputs):
        width = min(max(map(length, examples.values())) + _PADDING, inputs.length)
    largest = furthest = 0.0
    changed, answers = 0, 0
    for batch in mixed(examples, size, inputs.pad_id, width):
        found = predict(job.task, artifact.model, batch.inputs).logits
        expected, counts = _as_one(batch, alone, found.shape[-1]), valid(job.task, batch.inputs)
        furthest = _largest(furthest, agreement.differences(expected, found, counts))
        largest = _largest(largest, expected.float().abs())
        changed += int((~agreement.agrees(expected, found, decides, counts)).sum())
        answers += len(found)
    return {"batch_invariance": furthest / largest if largest else furthest, "batch_changed": changed / answers}


def _as_one(batch: Batch, alone: dict[int, Tensor], width: int) -> Tensor:
    """The answers to a batch's texts alone, where one answer has as many logits as a text has tokens made as wide."""
    return torch.cat([pad(alone[position], (0, width - alone[position].shape[-1])) for position in batch.positions])


def _largest(so_far: float, values: Tensor) -> float:
    """A NaN, once met, stays."""
    found = float(values.max())
    return found if math.isnan(found) or found > so_far else so_far
