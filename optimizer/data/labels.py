"""What labels mean to a model: classes, sets of them, scores, the classes of words."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optimizer.data.texts import Label, Texts
from optimizer.errors import DataError
from optimizer.model.task import task_of


@dataclass(frozen=True)
class Gold:
    """What is right for each text, in the one form that its model answers in; the others are None.

    `classes` are ids; `sets` the ids of each text; `scores` numbers; `tags` the names of the words' classes; `answers`
    those that each question has, () for one without.
    """

    classes: tuple[int, ...] | None = None
    sets: tuple[tuple[int, ...], ...] | None = None
    scores: tuple[float, ...] | None = None
    tags: tuple[tuple[str, ...], ...] | None = None
    answers: tuple[tuple[str, ...], ...] | None = None


def gold(texts: Texts, config: Mapping[str, Any]) -> Gold | None:
    """The labels as the model of a config.json's values answers; None where they say nothing of such answers.

    Raises DataError for labels of the right form that the model does not know.
    """
    task, problem = task_of(config), config.get("problem_type")
    ids, classes = _class_ids(config)
    if texts.labels is None:
        return None
    several = all(isinstance(label, tuple) for label in texts.labels)
    if task == "token-classification":
        return Gold(tags=_tags(texts, config)) if several else None
    if task == "question-answering":
        return _answers(texts.labels) if all(isinstance(text, tuple) for text in texts.texts) else None
    if several:
        is_set = task == "sequence-classification" and problem == "multi_label_classification"
        return Gold(sets=_sets(texts, ids, classes)) if is_set else None
    if task == "sequence-classification" and (problem == "regression" or classes == 1):
        return _scores(texts)
    if task == "encoder":
        return _scores(texts) if all(isinstance(text, tuple) for text in texts.texts) else None
    found = check_labels(texts, config)
    return None if found is None else Gold(classes=found)


def _answers(labels: Sequence[Label]) -> Gold:
    return Gold(answers=tuple(tuple(map(str, each if isinstance(each, tuple) else (each,))) for each in labels))


def _scores(texts: Texts) -> Gold | None:
    assert texts.labels is not None
    scores = [_number(label) for label in texts.labels]
    known = tuple(score for score in scores if score is not None)
    return Gold(scores=known) if len(known) == len(scores) else None


def _number(label: Label) -> float | None:
    if isinstance(label, tuple):
        return None
    try:
        number = float(label)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _sets(texts: Texts, ids: Mapping[str, int], classes: int) -> tuple[tuple[int, ...], ...]:
    assert texts.labels is not None
    found = {label: _class_id(label, ids, classes) for labels in texts.labels for label in _each(labels)}
    _refuse_unknown(texts, found, ids)
    return tuple(tuple(index for each in _each(label) if (index := found[each]) is not None) for label in texts.labels)


def _tags(texts: Texts, config: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    """Names of classes, as config.json has them; one for each of a text's words, where these are given."""
    assert texts.labels is not None
    ids, classes = _class_ids(config)
    names = class_names(config)
    found = {label: _class_id(label, ids, classes) for labels in texts.labels for label in _each(labels)}
    _refuse_unknown(texts, found, ids)
    if texts.tokens is None:
        raise DataError(f"{texts.name}: has labels of words but no words; write data.tokens=COLUMN, or data.label=''")
    for place, (words, labels) in enumerate(zip(texts.tokens, texts.labels, strict=True)):
        if len(words) != len(_each(labels)):
            raise DataError(f"{texts.name}: text {place + 1} has {len(words)} words and {len(_each(labels))} labels")
    return tuple(
        tuple(names[index] for each in _each(label) if (index := found[each]) is not None) for label in texts.labels
    )


def class_names(config: Mapping[str, Any]) -> dict[int, str]:
    """The names of the classes of a config.json's values, by their ids."""
    ids, classes = _class_ids(config)
    called = {int(index): str(name) for index, name in (config.get("id2label") or {}).items()}
    numbered = {index: f"LABEL_{index}" for index in range(classes)}
    return numbered | {index: name for name, index in ids.items()} | called


def _each(labels: Label) -> tuple[str | int, ...]:
    assert isinstance(labels, tuple)
    return labels


def _refuse_unknown(texts: Texts, found: Mapping[Any, int | None], ids: Mapping[str, int]) -> None:
    unknown = [str(label) for label, index in found.items() if index is None]
    if unknown:
        raise DataError(
            f"{texts.name}: the model does not know {_first(unknown)}; "
            f"it knows {_first(list(ids))}; write data.label=COLUMN, or data.label='' to go without"
        )


def check_labels(texts: Texts, config: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The labels as ids of the classes in a config.json's values, None unless the model gives each text one label.

    A label is matched by its name first, then as a number within range. Those of a dataset whose classes the model
    calls otherwise count as the numbers that they have there. Raises DataError for unknown ones.
    """
    ids, classes = _class_ids(config)
    several = config.get("problem_type") in ("multi_label_classification", "regression")
    if texts.labels is None or several or classes < 2 or task_of(config) != "sequence-classification":
        return None
    found = {label: _class_id(label, ids, classes) for label in dict.fromkeys(texts.labels)}
    if None in found.values() and classes == len(texts.classes):
        found = {label: texts.classes.index(label) for label in found}
    _refuse_unknown(texts, found, ids)
    return tuple(index for label in texts.labels if (index := found[label]) is not None)


def _class_ids(config: Mapping[str, Any]) -> tuple[dict[str, int], int]:
    """Class ids by name, and how many classes there are as transformers counts them: two unless config.json says."""
    named = config.get("id2label") or {}
    classes = len(named) or int(config.get("num_labels", 2))
    ids = {str(name): int(index) for index, name in named.items()}
    ids |= {str(name): int(index) for name, index in (config.get("label2id") or {}).items()}
    return ids or {f"LABEL_{index}": index for index in range(classes)}, classes


def _class_id(label: Label, ids: Mapping[str, int], classes: int) -> int | None:
    name = str(label)
    if name in ids:
        return ids[name]
    if name.isdecimal() and int(name) < classes:
        return int(name)
    return None


def _first(names: list[str]) -> str:
    """The first three names, and how many more there are."""
    shown = ", ".join(f"'{name}'" for name in names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
