"""What a model is for: the one table of tasks, and which of them a config.json names."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from optimizer.errors import ModelError

Task = Literal[
    "sequence-classification",
    "token-classification",
    "question-answering",
    "image-classification",
    "audio-classification",
    "seq2seq-lm",
    "masked-lm",
    "causal-lm",
    "encoder",
]

TASKS: tuple[Task, ...] = get_args(Task)


@dataclass(frozen=True)
class Kind:
    """What the models of a task have in common.

    `auto_class` is the name of the AutoModel class that loads them. `rows` says what one answer is given for: an
    example, each of its tokens, or each token that is generated after it. `decides` is what an answer decides: a class,
    labels (one class, several or a number, as the configuration says), or nothing, for a vector. `vocabulary`: the
    classes are the vocabulary. `outputs` are the fields of the model's output that hold the answer, the first that is
    there or, where `outputs` are stacked, all.
    """

    auto_class: str
    rows: Literal["example", "token", "generated"] = "example"
    decides: Literal["class", "labels", "vector"] = "class"
    vocabulary: bool = False
    outputs: tuple[str, ...] = ("logits",)


KINDS: dict[Task, Kind] = {
    "sequence-classification": Kind("AutoModelForSequenceClassification", decides="labels"),
    "token-classification": Kind("AutoModelForTokenClassification", rows="token"),
    "question-answering": Kind("AutoModelForQuestionAnswering", outputs=("start_logits", "end_logits")),
    "image-classification": Kind("AutoModelForImageClassification", decides="labels"),
    "audio-classification": Kind("AutoModelForAudioClassification", decides="labels"),
    "seq2seq-lm": Kind("AutoModelForSeq2SeqLM", rows="generated", vocabulary=True),
    "masked-lm": Kind("AutoModelForMaskedLM", rows="token", vocabulary=True),
    "causal-lm": Kind("AutoModelForCausalLM", rows="token", vocabulary=True),
    "encoder": Kind("AutoModel", decides="vector", outputs=("pooler_output", "last_hidden_state")),
}


def auto_class(task: Task) -> Any:
    """The transformers AutoModel class that loads models of `task`."""
    import transformers

    return getattr(transformers, KINDS[task].auto_class)


def task_of(config: Mapping[str, Any]) -> Task:
    """The task that `architectures` in a config.json names; `encoder` when it names a headless model.

    Raises ModelError for an architecture that no AutoModel class of TASKS loads.
    """
    from optimizer.model import internals

    architectures = config.get("architectures") or []
    if not architectures:
        return "encoder"
    for task in TASKS:
        if architectures[0] in internals.architectures(auto_class(task)):
            return task
    raise ModelError(
        f"config.json: architectures: '{architectures[0]}' has none of the tasks known here; known: {', '.join(TASKS)}"
    )
