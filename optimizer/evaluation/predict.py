"""Ask one model one batch, by the task it is for; the one table of how the models of each task answer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationMixin

from optimizer.engines.runnable import Runnable as Graph
from optimizer.errors import EvaluationError
from optimizer.evaluation.agreement import IGNORED, Decision
from optimizer.model.embedding import Embedder
from optimizer.model.runnable import Runnable
from optimizer.model.task import Task, problem_of
from optimizer.rows.figure import Need

_NEW_TOKENS = 32  # of the original's greedy output, for sequence to sequence

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Prediction:
    """A model's answer to one batch: `logits` `[rows, …, classes]`, for encoders one vector a row `[rows, width]`.

    Rows are the examples; the tokens that are not padding for token classification and language models; the
    generated tokens for sequence to sequence, where `decoder_ids` `[examples, 1 + tokens]` are the original's
    greedy output after its start token, of speech the model's own. For question answering logits are `[examples, 2,
    tokens]`: start and end; for images and texts `[images, texts]`.
    """

    logits: Tensor
    decoder_ids: Tensor | None = None


@torch.inference_mode()
def predict(
    task: Task,
    model: Any,
    inputs: Tensors,
    decoder_ids: Tensor | None = None,
    embedder: Embedder | None = None,
) -> Prediction:
    """The model's answer; for sequence to sequence under `decoder_ids`, or under its own greedy output.

    An encoder's is what an `embedder` makes of its tokens, without one what its pooler does, or their mean.
    """
    given = _on_device(model, inputs)
    if embedder is not None and task == "encoder":
        return Prediction(embedder(model(**given).last_hidden_state, given["attention_mask"]))
    return _KINDS[task].ask(model, given, decoder_ids)


def decision(task: Task, config: Any) -> Decision:
    """What the rows of a model with this configuration decide."""
    return _KINDS[task].decide(config)


def having(task: Task, config: Any) -> frozenset[Need]:
    """What figures of a model with this configuration can rest on; the labels and groups of its texts aside."""
    kind = _KINDS[task]
    match kind.decide(config):
        case "vector":
            return frozenset({"vector", "order"})
        case "number":
            return frozenset({"logits", "number", "order"})
        case "set":
            return frozenset({"logits", "decision", "set", "text label"})
    found: set[Need] = {"logits", "decision", *kind.has}
    return frozenset(found)


def answers_words(task: Task) -> bool:
    """Whether the classes of the answer are the tokens of the model's vocabulary."""
    return _KINDS[task].words


def is_heard(task: Task) -> bool:
    """Whether `decoder_ids` are what the model itself has written of what it heard."""
    return _KINDS[task].heard


def counted(task: Task) -> str:
    """What the rows of a model's answers are, in one word: texts, tokens, images, sounds."""
    return _KINDS[task].rows


def logits_per_token(task: Task, config: Any) -> int:
    """How many logits a model gives for each token of its input."""
    vocabulary: int = config.get_text_config().vocab_size if answers_words(task) else 1
    return vocabulary


def valid(task: Task, inputs: Tensors) -> Tensor | None:
    """The mask over logits of which some belong to padding: `[examples, 2, tokens]` for question answering."""
    return _KINDS[task].valid(inputs)


def next_tokens(task: Task, inputs: Tensors) -> Tensor | None:
    """For causal language models, the token that follows each row's in the text; IGNORED after the last."""
    return _KINDS[task].next_tokens(inputs)


def forward_inputs(task: Task, model: Runnable, block: Tensors) -> Tensors:
    """A block's inputs on the model's device, complete for one forward pass of `task`.

    For sequence to sequence the decoder reads the block's own first tokens, of speech any.
    """
    return _KINDS[task].complete(_on_device(model, block))


def tune(task: Task, model: Runnable, block: Tensors) -> str | None:
    """Have an engine choose how to run blocks of this shape, now; its choice in words, None where there is none."""
    return model.tune(**forward_inputs(task, model, block)) if isinstance(model, Graph) else None


def _on_device(model: Runnable, inputs: Tensors) -> Tensors:
    """Token ids as they are, images and sound in the model's own precision."""
    return {
        name: values.to(model.device, model.dtype if values.is_floating_point() else values.dtype)
        for name, values in inputs.items()
    }


def _of_text(model: Any, inputs: Tensors, decoder_ids: Tensor | None) -> Prediction:
    return Prediction(model(**inputs).logits)


def _of_tokens(model: Any, inputs: Tensors, decoder_ids: Tensor | None) -> Prediction:
    return Prediction(model(**inputs).logits[inputs["attention_mask"].bool()])


def _of_spans(model: Any, inputs: Tensors, decoder_ids: Tensor | None) -> Prediction:
    output = model(**inputs)
    return Prediction(torch.stack([output.start_logits, output.end_logits], dim=1))


def _pooled(model: Any, inputs: Tensors, decoder_ids: Tensor | None) -> Prediction:
    """The pooler's output, else the mean over the tokens that are not padding."""
    output, mask = model(**inputs), inputs.get("attention_mask")
    pooled: Tensor | None = getattr(output, "pooler_output", None)
    if pooled is not None:
        return Prediction(pooled.flatten(1))
    states: Tensor = output.last_hidden_state
    if mask is None:
        return Prediction(states.mean(1))
    weights = mask.unsqueeze(-1).to(states.dtype)
    return Prediction((states * weights).sum(1) / weights.sum(1))


def _of_images(model: Any, inputs: Tensors, decoder_ids: Tensor | None) -> Prediction:
    return Prediction(model(**_with_texts(inputs)).logits_per_image)


def _generated(model: Any, inputs: Tensors, decoder_ids: Tensor | None) -> Prediction:
    ids = _greedy(model, inputs) if decoder_ids is None else decoder_ids.to(model.device)
    return Prediction(_following_logits(model, inputs, ids), ids)


def _transcribed(model: Any, inputs: Tensors, decoder_ids: Tensor | None) -> Prediction:
    own = _greedy(model, inputs)
    ids = own if decoder_ids is None else decoder_ids.to(model.device)
    return Prediction(_following_logits(model, inputs, ids), own)


def _following_logits(model: Any, inputs: Tensors, ids: Tensor) -> Tensor:
    """Logits for each token of `ids` up to the first end of sequence, given those before it."""
    logits: Tensor = model(**inputs, decoder_input_ids=ids[:, :-1]).logits
    ends = torch.tensor(_end_ids(model), device=ids.device)
    ended = torch.isin(ids[:, 1:], ends).cumsum(1)
    before_end = torch.cat([torch.zeros_like(ended[:, :1]), ended[:, :-1]], dim=1) == 0
    return logits[before_end]


def _greedy(model: Any, inputs: Tensors) -> Tensor:
    if not hasattr(model, "generation_config"):
        raise EvaluationError(
            "a sequence to sequence model is measured by the text that it writes, and only torch writes here; "
            "write format=dense, or evaluation=none"
        )
    # Not Whisper's own `generate`, which asks generation_config.json for languages and leaves out the start token.
    ids: Tensor = GenerationMixin.generate(model, **inputs, max_new_tokens=_NEW_TOKENS, num_beams=1, do_sample=False)
    return ids


def _end_ids(model: Any) -> list[int]:
    ids = model.generation_config.eos_token_id
    return [] if ids is None else [ids] if isinstance(ids, int) else list(ids)


def _span_tokens(inputs: Tensors) -> Tensor:
    return inputs["attention_mask"].bool().unsqueeze(1).repeat(1, 2, 1)


def _following(inputs: Tensors) -> Tensor:
    mask = inputs["attention_mask"].bool()
    ids = inputs["input_ids"].masked_fill(~mask, IGNORED)
    following = torch.cat([ids[:, 1:], torch.full_like(ids[:, :1], IGNORED)], dim=1)
    return following[mask]


def _with_decoder(inputs: Tensors) -> Tensors:
    return inputs | {"decoder_input_ids": inputs["input_ids"][:, :_NEW_TOKENS]}


def _with_any_decoder(inputs: Tensors) -> Tensors:
    sound = next(iter(inputs.values()))
    return inputs | {"decoder_input_ids": torch.zeros(len(sound), _NEW_TOKENS, dtype=torch.long, device=sound.device)}


def _with_texts(inputs: Tensors) -> Tensors:
    """The same texts for all images, once."""
    return {name: values if name == "pixel_values" else values[0] for name, values in inputs.items()}


@dataclass(frozen=True)
class _Kind:
    """How the models of a task answer; the fields are the functions above of the same name, `ask` is `predict`'s.

    `heard` is `is_heard`'s; `rows` is what those of an answer are; `has` is what figures of those that decide on
    classes rest on beside that.
    """

    ask: Callable[[Any, Tensors, Tensor | None], Prediction]
    decide: Callable[[Any], Decision] = lambda config: "class"
    words: bool = False
    heard: bool = False
    rows: str = "texts"
    has: tuple[Need, ...] = ()
    valid: Callable[[Tensors], Tensor | None] = lambda inputs: None
    next_tokens: Callable[[Tensors], Tensor | None] = lambda inputs: None
    complete: Callable[[Tensors], Tensors] = lambda inputs: inputs


_KINDS: dict[Task, _Kind] = {
    "sequence-classification": _Kind(_of_text, problem_of, has=("class", "text label")),
    "image-classification": _Kind(_of_text, problem_of, rows="images"),
    "audio-classification": _Kind(_of_text, problem_of, rows="sounds"),
    "token-classification": _Kind(_of_tokens, rows="tokens", has=("tags",)),
    "question-answering": _Kind(_of_spans, has=("spans",), valid=_span_tokens),
    "masked-lm": _Kind(_of_tokens, words=True, rows="tokens"),
    "causal-lm": _Kind(_of_tokens, words=True, rows="tokens", has=("text",), next_tokens=_following),
    "seq2seq-lm": _Kind(_generated, words=True, rows="tokens", complete=_with_decoder),
    "speech-seq2seq": _Kind(
        _transcribed, words=True, heard=True, rows="tokens", has=("heard",), complete=_with_any_decoder
    ),
    "zero-shot-image-classification": _Kind(_of_images, rows="images", complete=_with_texts),
    "encoder": _Kind(_pooled, lambda config: "vector"),
}
