"""What a model is for: the task and the AutoModel class that its config.json names."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

from optimizer.errors import ModelError

Task = Literal[
    "sequence-classification",
    "token-classification",
    "question-answering",
    "image-classification",
    "audio-classification",
    "seq2seq-lm",
    "speech-seq2seq",
    "masked-lm",
    "causal-lm",
    "zero-shot-image-classification",
    "encoder",
]

TASKS: tuple[Task, ...] = get_args(Task)

Problem = Literal["class", "set", "number"]

_AUTO_CLASS: dict[Task, str] = {
    "sequence-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "image-classification": "AutoModelForImageClassification",
    "audio-classification": "AutoModelForAudioClassification",
    "seq2seq-lm": "AutoModelForSeq2SeqLM",
    "speech-seq2seq": "AutoModelForSpeechSeq2Seq",
    "masked-lm": "AutoModelForMaskedLM",
    "causal-lm": "AutoModelForCausalLM",
    "zero-shot-image-classification": "AutoModelForZeroShotImageClassification",
    "encoder": "AutoModel",
}


def auto_class(task: Task) -> Any:
    """The transformers AutoModel class that loads models of `task`."""
    import transformers

    return getattr(transformers, _AUTO_CLASS[task])


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


def has_head(task: Task) -> bool:
    """Whether models of `task` end in layers of the task's own; the others give embeddings, or compare them."""
    return task not in ("zero-shot-image-classification", "encoder")


def problem_of(config: Any) -> Problem:
    """What a classifier with this transformers configuration decides on: one label, a set of them, or numbers."""
    if config.problem_type == "multi_label_classification":
        return "set"
    return "number" if config.problem_type == "regression" or config.num_labels == 1 else "class"
