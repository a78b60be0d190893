"""The module that is exported: a loaded model without the work that its answers do not need, verified against it."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from optimizer.engines import deberta, first_token, modernbert, unread
from optimizer.engines.runnable import Runnable
from optimizer.errors import first_line
from optimizer.model.examples import input_names
from optimizer.model.task import Task
from optimizer.model.tokenizer import positions

Reduction = Callable[[nn.Module], nn.Module]
Inputs = dict[str, torch.Tensor]

FIRST_TOKEN = "the last layer for the first token alone"
POSITIONS = "relative positions folded into constants"
MASKS = "masks made once, without infinities"
UNREAD = "that nothing reads"

# Rounding moves logits by a few millionths of their size; what moves them by more than this is another function.
_TOLERANCE = 1e-4
_SHAPES = ((1, 7), (3, 33), (2, 160))  # texts x tokens

# Of each family, what its sequence classifiers can do without, best first.
_CLASSIFIERS: dict[str, list[tuple[str, Reduction]]] = {
    **{
        family: [(FIRST_TOKEN, first_token.last_layer(f"{prefix}.encoder.layer", first_token.bert_parts))]
        for family, prefix in {
            "bert": "bert",
            "roberta": "roberta",
            "xlm-roberta": "roberta",
            "camembert": "roberta",
            "electra": "electra",
        }.items()
    },
    "distilbert": [(FIRST_TOKEN, first_token.last_layer("distilbert.transformer.layer", first_token.distilbert_parts))],
    "mpnet": [(FIRST_TOKEN, first_token.last_layer("mpnet.encoder.layer", first_token.mpnet_parts, in_tuple=True))],
    "albert": [(FIRST_TOKEN, first_token.albert)],
    "modernbert": [(f"{MASKS}, {FIRST_TOKEN}", modernbert.masks_and_first_token), (MASKS, modernbert.masks)],
    "deberta-v2": [(f"{POSITIONS}, {FIRST_TOKEN}", deberta.positions_and_first_token), (POSITIONS, deberta.positions)],
}
# And what any task of a family can do without.
_ENCODERS: dict[str, list[tuple[str, Reduction]]] = {
    "deberta-v2": [(POSITIONS, deberta.positions)],
    "modernbert": [(MASKS, modernbert.masks)],
}

_OUTPUTS: dict[Task, tuple[str, ...]] = {
    "sequence-classification": ("logits",),
    "token-classification": ("logits",),
    "question-answering": ("start_logits", "end_logits"),
    "encoder": ("last_hidden_state",),
}


class Exported(nn.Module):
    """A model as an engine wants it: token ids in by name, the tensors of its task out, nothing else.

    `inputs` are the names that it takes, `outputs` those of what it gives, both in order: one tensor, or a tuple.
    `selections` are what it has of matrices that were narrowed.
    """

    def __init__(self, model: Any, task: Task, selections: Sequence[unread.Selection] = ()) -> None:
        super().__init__()
        self.model = model
        self.selections = selections
        self.inputs = input_names(model)
        self.outputs = _OUTPUTS[task]
        if task == "encoder" and getattr(model, "pooler", None) is not None:
            self.outputs = (*self.outputs, "pooler_output")
        # Modules are born in training mode. An exporter that finds one so puts it back so afterwards, and with it all
        # modules that are shared with the caller's model: dropout in a model that was evaluated.
        self.train(model.training)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> torch.Tensor | tuple[torch.Tensor, ...]:
        named = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        outputs = self.model(**{name: named[name] for name in self.inputs}, return_dict=True)
        values = tuple(outputs[name] for name in self.outputs)
        return values[0] if len(values) == 1 else values


def reduce(model: Any, task: Task, log: Callable[[str], None]) -> Exported:
    """The module to export for `model`, a float32 transformers model in evaluation mode, which is left as it is.

    It gives the same answers with less work where the family has a known reduction; each is tried on random and padded
    inputs against the model itself. Lines of `log` say what was left out, or which reduction failed and why.
    The two share their weights, but for matrices that were narrowed.
    """
    plain = Exported(model, task)
    narrow = _without_unread(plain, task, log)
    family = model.config.model_type
    known = (_CLASSIFIERS if task == "sequence-classification" else _ENCODERS).get(family, [])
    if not known and narrow is plain:
        log(f"less work: nothing is known to be left out of a '{family}' model for {task}")
    for name, reduction in known:
        reduced = _verified(plain, name, partial(_reduced, narrow, reduction, task), log)
        if reduced is not None:
            return reduced
    return narrow


def _without_unread(plain: Exported, task: Task, log: Callable[[str], None]) -> Exported:
    """The module with narrower layers where there are neurons or heads that nothing reads."""
    units = unread.find(plain.model)
    much = unread.described(units)
    if not much:
        return plain
    done = f"{much} {UNREAD} are left out"
    return _verified(plain, f"{much} {UNREAD}", partial(_narrowed, plain, units, task), log, done) or plain


def _reduced(narrow: Exported, reduction: Reduction, task: Task) -> Exported:
    return Exported(reduction(narrow.model), task, narrow.selections)


def _narrowed(plain: Exported, units: Sequence[unread.Units], task: Task) -> Exported:
    model, selections = unread.narrowed(plain.model, units)
    return Exported(model, task, selections)


def _verified(
    plain: Exported, name: str, make: Callable[[], Exported], log: Callable[[str], None], done: str | None = None
) -> Exported | None:
    """A module that answers as `plain` does; None, and the reason in the log, if it cannot be made or does not."""
    try:
        reduced = make()
        difference = _difference(plain, partial(_values, reduced))
    except Exception as error:
        # Whatever a rewritten forward trips over, this version of the family is not the one it was written for.
        log(f"less work: {name}: left out, {type(error).__name__}: {first_line(error)}")
        return None
    if difference <= _TOLERANCE:
        log(f"less work: {done or name} (answers differ by {difference:.0e} of their size)")
        return reduced
    log(f"less work: {name}: left out, answers would differ by {difference:.0e} of their size")
    return None


def unlike(module: Exported, graph: Runnable) -> float:
    """The largest difference between what a module and its graph answer, as a share of the largest answer."""
    return _difference(module, lambda inputs: [graph(**inputs)[name] for name in module.outputs])


@torch.no_grad()
def _difference(plain: Exported, other: Callable[[Inputs], Sequence[torch.Tensor]]) -> float:
    """The largest difference between a module's outputs and others, as a share of the largest of its own.

    Both are the largest over all shapes: a single answer that happens to be near zero is no measure.
    """
    sizes, differences = torch.zeros(len(plain.outputs)), torch.zeros(len(plain.outputs))
    for texts, tokens in _SHAPES:
        inputs = _inputs(plain, texts, tokens)
        pairs = zip(_said(plain, inputs, _values(plain, inputs)), _said(plain, inputs, other(inputs)), strict=True)
        for place, (one, another) in enumerate(pairs):
            if one.shape != another.shape:
                raise ValueError(f"outputs of {list(another.shape)} instead of {list(one.shape)}")
            sizes[place] = torch.maximum(sizes[place], one.abs().max())  # of a NaN and a number it is the NaN
            differences[place] = torch.maximum(differences[place], (one - another).abs().max())
    return (differences / sizes.clamp_min(torch.finfo(sizes.dtype).tiny)).max().item()


def _values(module: Exported, inputs: Inputs) -> Sequence[torch.Tensor]:
    values = module(**inputs)
    return values if isinstance(values, tuple) else (values,)


def _said(module: Exported, inputs: Inputs, values: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Outputs without those of padding, which are nobody's answer."""
    said = inputs["attention_mask"].bool()
    return [
        value[said] if value.dim() == 3 or name.startswith(("start", "end")) else value
        for name, value in zip(module.outputs, values, strict=True)
    ]


def _inputs(module: Exported, texts: int, tokens: int) -> Inputs:
    """Random texts, each but the first shorter than the one before and padded."""
    config = module.model.config
    padding = getattr(config, "pad_token_id", None) or 0
    tokens = min(tokens, positions(module.model) or tokens)
    draw = torch.Generator().manual_seed(0)
    mask = (torch.arange(tokens) < (tokens - torch.arange(texts) * tokens // (texts + 1))[:, None]).long()
    ids = torch.randint(config.vocab_size, (texts, tokens), generator=draw).masked_fill(mask == 0, padding)
    inputs = {"input_ids": ids, "attention_mask": mask}
    if "token_type_ids" in module.inputs:
        inputs["token_type_ids"] = (torch.arange(tokens) >= tokens // 2).long().expand(texts, tokens) * mask
    return inputs
