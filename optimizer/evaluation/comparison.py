"""Ask original and artifact the same, batch by batch, and count how far they agree."""

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from filelock import FileLock
from torch import Tensor
from tqdm import tqdm

from optimizer.errors import EvaluationError
from optimizer.evaluation.cache import Recorder, recorded
from optimizer.evaluation.inputs import Batch, Inputs, batches
from optimizer.evaluation.job import Job
from optimizer.evaluation.models import Pair
from optimizer.evaluation.predict import Prediction, decision, next_tokens, predict, valid
from optimizer.evaluation.tally import Answers, Figures, Tally
from optimizer.evaluation.texts import check_labels
from optimizer.model.task import Task

_log = logging.getLogger(__name__)


def compare(job: Job, inputs: Inputs, pair: Pair) -> Figures:
    """The row's figures of agreement on the job's examples, and `data`.

    The original's predictions come from the cache where it has them, else they are computed and kept, while other
    processes that need them wait; those that are too large to keep are computed beside the artifact's. Raises
    EvaluationError when the two models' answers differ in shape.
    """
    config = inputs.model.config
    path = job.cache / f"{_key(job, inputs)}.safetensors"
    labels = _labels(job, inputs)
    tally = Tally(decision(job.task, config))
    plan = list(
        batches(
            inputs.examples(job.settings.examples), job.settings.batch_size, inputs.pad_id, _width(job.task, config)
        )
    )
    with _asking(path):
        known = recorded(path) or _record(job.task, pair, plan, path)
    for index, batch in enumerate(tqdm(plan, desc="agreement", unit="batch", leave=False, disable=None)):
        original = known.read(index) if known else predict(job.task, pair.original, batch.inputs)
        artifact = predict(job.task, pair.artifact, batch.inputs, original.decoder_ids)
        tally.add(_answers(job.task, batch, original, artifact, labels))
    return {"data": inputs.data, **tally.figures()}


def _key(job: Job, inputs: Inputs) -> str:
    """A name for everything that decides the original's predictions."""
    device = torch.device(job.environment.device)
    decides = {
        "original": job.fingerprint,
        "task": job.task,
        "data": inputs.data if inputs.data == "random" else job.texts.fingerprint,
        "examples": job.settings.examples,
        "batch_size": job.settings.batch_size,
        "seed": job.environment.seed,
        "threads": job.environment.threads,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:32]


def _labels(job: Job, inputs: Inputs) -> tuple[int, ...] | None:
    if inputs.data == "random":
        return None
    config = json.loads((job.original / "config.json").read_text(encoding="utf-8"))
    return check_labels(job.texts, config)


def _width(task: Task, config: Any) -> int:
    """How many logits a model gives for each token of its input."""
    if task in ("causal-lm", "masked-lm", "seq2seq-lm"):
        vocabulary: int = config.get_text_config().vocab_size
        return vocabulary
    return 1


def _answers(
    task: Task, batch: Batch, original: Prediction, artifact: Prediction, labels: tuple[int, ...] | None
) -> Answers:
    if original.logits.shape != artifact.logits.shape:
        raise EvaluationError(
            f"the artifact's answers have the shape {list(artifact.logits.shape)}, the original's "
            f"{list(original.logits.shape)}; give the original that the artifact was made from"
        )
    device = artifact.logits.device

    def here(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(device)

    return Answers(
        original=original.logits.to(device),
        artifact=artifact.logits,
        valid=here(valid(task, batch.inputs)),
        labels=here(None if labels is None else torch.tensor([labels[position] for position in batch.positions])),
        next_tokens=here(next_tokens(task, batch.inputs)),
    )


def _record(task: Task, pair: Pair, plan: list[Batch], path: Path) -> Recorder | None:
    """The original's predictions, stored at `path`; None when they are too large."""
    recorder = Recorder(path)
    for batch in tqdm(plan, desc="original", unit="batch", leave=False, disable=None):
        if not recorder.add(predict(task, pair.original, batch.inputs)):
            return None
    try:
        recorder.write()
    except OSError as error:
        _log.warning("%s: the original's predictions are not kept: %s", path, error.strerror or error)
    return recorder


@contextmanager
def _asking(path: Path) -> Iterator[None]:
    """Let only one process ask the original what `path` will hold."""
    lock = FileLock(path.with_suffix(".lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError:  # what cannot be locked cannot be kept either, and each asks for itself
        _log.debug("%s cannot be locked", path)
    try:
        yield
    finally:
        lock.release()
