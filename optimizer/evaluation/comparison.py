"""Ask original and artifact the same, batch by batch, and count how far they agree."""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path

import torch
import transformers
from torch import Tensor
from tqdm import tqdm

from optimizer.cached import one_at_a_time
from optimizer.data.labels import Gold, class_names, gold
from optimizer.data.texts import Texts
from optimizer.data.tokens import Example, TokenInputs
from optimizer.errors import EvaluationError
from optimizer.evaluation.cache import Recorder, recorded
from optimizer.evaluation.changed import Changed
from optimizer.evaluation.inputs import Batch, Inputs, alike, batches
from optimizer.evaluation.job import Job
from optimizer.evaluation.kept import About, Kept
from optimizer.evaluation.models import Side
from optimizer.evaluation.predict import (
    Prediction,
    answers_words,
    counted,
    decision,
    is_heard,
    logits_per_token,
    next_tokens,
    valid,
)
from optimizer.evaluation.tally import Answers, Figures, Tally
from optimizer.evaluation.words import Words
from optimizer.model.checkpoint import read_config
from optimizer.model.task import Task
from optimizer.rows.changes import write_changes

_log = logging.getLogger(__name__)


def compare(job: Job, texts: Texts, original: Side, artifact: Side) -> Figures:
    """The row's figures of agreement on the job's examples, and `data`.

    The original's predictions come from the cache where it has them, else they are computed and kept, while other
    processes that need them wait; those that are too large to keep are computed beside the artifact's. Raises
    EvaluationError when the two models' answers differ in shape.
    """
    asked = original.inputs
    config = transformers.AutoConfig.from_pretrained(job.original, trust_remote_code=False)
    path = job.cache / f"{_key(job, asked)}.safetensors"
    examples, width = asked.examples(job.settings.examples), logits_per_token(job.task, config)
    plan = list(batches(examples, job.settings.batch_size, asked.pad_id, width))
    about = _about(job, texts, asked, examples)
    decides, words = decision(job.task, config), Words(job.original, config)
    tally, kept = Tally(decides), Kept(decides, about)
    changed = Changed(job.task, config, asked, keep_texts=job.data.keep_texts, starts=about.starts)
    own_plan = _own_plan(job, plan, artifact.inputs) if artifact.inputs is not asked else plan
    with one_at_a_time(path):
        known = recorded(path) or _record(original, plan, path)
    broken: dict[str, list[int]] = {"original": [], "artifact": []}
    pairs = zip(plan, own_plan, strict=True)
    bar = tqdm(pairs, desc="agreement", unit="batch", total=len(plan), leave=False, disable=None)
    for index, (batch, own) in enumerate(bar):
        expected = known.read(index) if known else original.ask(batch.inputs)
        found = artifact.ask(own.inputs, expected.decoder_ids)
        answers = _answers(job.task, batch, expected, found, about.gold.classes)
        for whose, logits in (("original", answers.original), ("artifact", answers.artifact)):
            broken[whose] += _without_an_answer(batch, logits, answers.valid)
        if about.starts is not None:
            answers = answers.at(torch.cat([about.starts[position] for position in batch.positions]) >= 0)
        tally.add(answers)
        changed.add(batch, answers)
        kept.add(batch.positions, answers)
        if is_heard(job.task):
            tally.add_texts(*(words.of(prediction.decoder_ids) for prediction in (expected, found)))
    for whose, positions in broken.items():
        if positions:
            raise EvaluationError(_nan(whose, positions, len(examples), asked.data))
    if job.changes:
        write_changes(job.changes, changed.found())
    rows = counted(job.task) if about.starts is None else "words"
    what = "inputs" if rows == "texts" and asked.data == "random" else rows
    figures: Figures = {"data": asked.data, "counted": what, **tally.figures(), **kept.figures()}
    if isinstance(asked, TokenInputs):
        figures |= {"texts_cut": asked.cut(examples), "texts_blank": asked.blank(job.settings.examples, examples)}
    return figures


def _about(job: Job, texts: Texts, asked: Inputs, examples: Mapping[int, Example]) -> About:
    """What is known of the examples; of random ones nothing."""
    if not isinstance(asked, TokenInputs):
        return About()
    config = read_config(job.original)
    return About(
        gold=gold(texts, config) or Gold(),
        groups=texts.groups,
        readings={place: tuple(example["input_ids"].tolist()) for place, example in examples.items()}
        if job.task == "encoder"
        else {},
        apart=asked.is_apart,
        starts=asked.word_starts(list(examples)) if job.task == "token-classification" else None,
        names=class_names(config),
        spans=asked.spans(list(examples)) if job.task == "question-answering" else {},
        contexts={place: text[1] for place, text in enumerate(texts.texts) if not isinstance(text, str)},
    )


def _without_an_answer(batch: Batch, logits: Tensor, valid: Tensor | None) -> list[int]:
    """The positions of a batch's texts to which a model says NaN."""
    nan = logits.isnan() if valid is None else logits.isnan() & valid
    rows = nan.flatten(1).any(1).cpu()
    if not rows.any():
        return []
    owners = _owners(batch, len(rows))
    if owners is None:  # generated tokens, of any text of the batch
        return [batch.positions[0]]
    return list(dict.fromkeys(owners[rows].tolist()))


def _owners(batch: Batch, rows: int) -> Tensor | None:
    """The position of the text that each of so many rows of its answer is of; None where that is not known."""
    mask, positions = batch.inputs.get("attention_mask"), torch.tensor(batch.positions)
    if rows == len(positions):
        return positions
    if mask is not None and rows == int(mask.sum()):
        return positions.repeat_interleave(mask.sum(1).cpu())
    return None


def _nan(whose: str, positions: list[int], count: int, data: str) -> str:
    remedy = (
        "mend it before it is made smaller"
        if whose == "original"
        else "its weights are finite, so it overflows as it computes: write stages.cast.dtype=bfloat16, or change less"
    )
    where = f"text {min(positions) + 1} of {data}" if data != "random" else "random inputs"
    return f"the {whose} answers NaN to {len(positions)} of {count} examples, the first of them {where}; {remedy}"


def _own_plan(job: Job, plan: list[Batch], inputs: Inputs) -> list[Batch]:
    """The batches of `plan` as the artifact's own tokenizer gives them."""
    own = alike(plan, inputs.examples(job.settings.examples), inputs.pad_id)
    if answers_words(job.task) and not all(map(_same, plan, own)):
        raise EvaluationError(
            "the artifact's tokenizer gives other tokens than the original's, so its answers, which are tokens, cannot "
            "be compared; write evaluation.examples=0"
        )
    return own


def _same(first: Batch, second: Batch) -> bool:
    return first.inputs.keys() == second.inputs.keys() and all(
        torch.equal(values, second.inputs[name]) for name, values in first.inputs.items()
    )


def _key(job: Job, inputs: Inputs) -> str:
    """A name for everything that decides the original's predictions."""
    device = torch.device(job.environment.device)
    decides = {
        # What an encoder is asked for has changed: earlier releases kept what its pooler makes of a text.
        **({"vectors": job.data.pooling or "deployed"} if job.task == "encoder" else {}),
        "original": job.fingerprint,
        "task": job.task,
        "data": inputs.data if inputs.data == "random" else job.data_fingerprint,
        "examples": job.settings.examples,
        "batch_size": job.settings.batch_size,
        "seed": job.environment.seed,
        "threads": job.environment.threads,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:32]


def _answers(
    task: Task, batch: Batch, original: Prediction, artifact: Prediction, labels: tuple[int, ...] | None
) -> Answers:
    if original.logits.shape != artifact.logits.shape:
        raise EvaluationError(
            f"the artifact's answers have the shape {list(artifact.logits.shape)}, the original's "
            f"{list(original.logits.shape)}; give the original that the artifact was made from"
        )
    device, is_per_token = artifact.logits.device, counted(task) == "tokens" and original.decoder_ids is None

    def here(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(device)

    return Answers(
        original=original.logits.to(device),
        artifact=artifact.logits,
        valid=here(valid(task, batch.inputs)),
        labels=here(None if labels is None else torch.tensor([labels[position] for position in batch.positions])),
        next_tokens=here(next_tokens(task, batch.inputs)),
        texts=here(_owners(batch, len(artifact.logits))) if is_per_token else None,
    )


def _record(original: Side, plan: list[Batch], path: Path) -> Recorder | None:
    """The original's predictions, stored at `path`; None when they are too large."""
    recorder = Recorder(path)
    for batch in tqdm(plan, desc="original", unit="batch", leave=False, disable=None):
        if not recorder.add(original.ask(batch.inputs)):
            return None
    try:
        recorder.write()
    except OSError as error:
        _log.warning("%s: the original's predictions are not kept: %s", path, error.strerror or error)
    return recorder
