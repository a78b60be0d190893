"""Ask one model one batch, by the task it is for."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from optimizer.evaluation.agreement import IGNORED, Decision
from optimizer.model.task import Task

_NEW_TOKENS = 32  # of the original's greedy output, for sequence to sequence
_TOKEN_TASKS = ("token-classification", "masked-lm", "causal-lm")


@dataclass(frozen=True)
class Prediction:
    """A model's answer to one batch: `logits` `[rows, …, classes]`, for encoders the pooled output `[rows, width]`.

    Rows are the examples; the tokens that are not padding for token classification and language models; the
    generated tokens for sequence to sequence, where `decoder_ids` `[examples, 1 + tokens]` are the original's
    greedy output after its start token. For question answering logits are `[examples, 2, tokens]`: start and end.
    """

    logits: Tensor
    decoder_ids: Tensor | None = None


def decision(task: Task, config: Any) -> Decision:
    """What the rows of a model with this configuration decide."""
    if task == "encoder":
        return "vector"
    if task in ("sequence-classification", "image-classification", "audio-classification"):
        if config.problem_type == "multi_label_classification":
            return "set"
        if config.problem_type == "regression" or config.num_labels == 1:
            return "number"
    return "class"


@torch.inference_mode()
def predict(task: Task, model: Any, inputs: dict[str, Tensor], decoder_ids: Tensor | None = None) -> Prediction:
    """The model's answer; for sequence to sequence under `decoder_ids`, or under its own greedy output."""
    inputs = _on_device(model, inputs)
    if task == "seq2seq-lm":
        return _after(model, inputs, _greedy(model, inputs) if decoder_ids is None else decoder_ids.to(model.device))
    output = model(**inputs)
    if task == "encoder":
        return Prediction(_pooled(output, inputs.get("attention_mask")))
    if task == "question-answering":
        return Prediction(torch.stack([output.start_logits, output.end_logits], dim=1))
    if task in _TOKEN_TASKS:
        return Prediction(output.logits[inputs["attention_mask"].bool()])
    return Prediction(output.logits)


def valid(task: Task, inputs: dict[str, Tensor]) -> Tensor | None:
    """The mask over logits of which some belong to padding: `[examples, 2, tokens]` for question answering."""
    if task != "question-answering":
        return None
    return inputs["attention_mask"].bool().unsqueeze(1).repeat(1, 2, 1)


def next_tokens(task: Task, inputs: dict[str, Tensor]) -> Tensor | None:
    """For causal language models, the token that follows each row's in the text; IGNORED after the last."""
    if task != "causal-lm":
        return None
    mask = inputs["attention_mask"].bool()
    ids = inputs["input_ids"].masked_fill(~mask, IGNORED)
    following = torch.cat([ids[:, 1:], torch.full_like(ids[:, :1], IGNORED)], dim=1)
    return following[mask]


def forward_inputs(task: Task, model: Any, block: dict[str, Tensor]) -> dict[str, Tensor]:
    """A block's inputs on the model's device, complete for one forward pass of `task`.

    For sequence to sequence the decoder reads the block's own first tokens.
    """
    inputs = _on_device(model, block)
    if task == "seq2seq-lm":
        inputs["decoder_input_ids"] = inputs["input_ids"][:, :_NEW_TOKENS]
    return inputs


def _on_device(model: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Token ids as they are, images and sound in the model's own precision."""
    return {
        name: values.to(model.device, model.dtype if values.is_floating_point() else values.dtype)
        for name, values in inputs.items()
    }


def _greedy(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    ids: Tensor = model.generate(**inputs, max_new_tokens=_NEW_TOKENS, num_beams=1, do_sample=False)
    return ids


def _after(model: Any, inputs: dict[str, Tensor], decoder_ids: Tensor) -> Prediction:
    """Logits for each token of `decoder_ids` up to the first end of sequence, given those before it."""
    logits = model(**inputs, decoder_input_ids=decoder_ids[:, :-1]).logits
    ends = torch.tensor(_end_ids(model), device=decoder_ids.device)
    ended = torch.isin(decoder_ids[:, 1:], ends).cumsum(1)
    before_end = torch.cat([torch.zeros_like(ended[:, :1]), ended[:, :-1]], dim=1) == 0
    return Prediction(logits[before_end], decoder_ids)


def _end_ids(model: Any) -> list[int]:
    ids = model.generation_config.eos_token_id
    return [] if ids is None else [ids] if isinstance(ids, int) else list(ids)


def _pooled(output: Any, mask: Tensor | None) -> Tensor:
    """The pooler's output, else the mean over the tokens that are not padding, `[examples, width]`."""
    pooled: Tensor | None = getattr(output, "pooler_output", None)
    if pooled is not None:
        return pooled.flatten(1)
    states: Tensor = output.last_hidden_state
    if mask is None:
        return states.mean(1)
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1)
