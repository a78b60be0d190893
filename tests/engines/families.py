"""Tiny classifiers with random weights, one of each family that a reduction is known for, and their inputs."""

from collections.abc import Callable
from typing import Any

import torch
import transformers

from optimizer.engines.reduce import Exported, reduce
from optimizer.model.task import Task

VOCABULARY = 96
_SIZES = {"vocab_size": VOCABULARY, "num_labels": 3, "initializer_range": 0.3, "pad_token_id": 0}
_BERT = _SIZES | {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96,
    "max_position_embeddings": 80,
}  # fmt: skip


def _of(kind: str, **config: Any) -> Any:
    torch.manual_seed(0)
    settings = getattr(transformers, f"{kind}Config")(**config)
    model = getattr(transformers, f"{kind}ForSequenceClassification")(settings).eval()
    # Norms and biases begin as ones and zeros, which would hide a swapped pair.
    for parameter in model.parameters():
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, mean=float(parameter.mean() > 0.5), std=0.2)
    return model


def deberta(**changes: Any) -> Any:
    """A DeBERTa-v2 that attends to relative positions."""
    config = {
        "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "norm_rel_ebd": "layer_norm", "position_buckets": 8,
        "share_att_key": True, "position_biased_input": False, "type_vocab_size": 0, "max_relative_positions": -1,
        "pooler_hidden_size": 64,
    }  # fmt: skip
    return _of("DebertaV2", **_BERT | config | changes)


def bert(**changes: Any) -> Any:
    """A BERT."""
    return _of("Bert", **_BERT | changes)


def modernbert(**changes: Any) -> Any:
    """A ModernBERT; its last layer sees all tokens, the one before its neighbours."""
    config = {
        "global_attn_every_n_layers": 2, "local_attention": 8, "num_hidden_layers": 3, "classifier_pooling": "cls",
        "attention_bias": True, "norm_bias": True,
        "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2,
    }  # fmt: skip
    return _of("ModernBert", **_BERT | config | changes)


FAMILIES: dict[str, Callable[[], Any]] = {
    "bert": bert,
    "roberta": lambda: _of("Roberta", **_BERT | {"pad_token_id": 1, "type_vocab_size": 1}),
    "xlm-roberta": lambda: _of("XLMRoberta", **_BERT | {"pad_token_id": 1, "type_vocab_size": 1}),
    "camembert": lambda: _of("Camembert", **_BERT | {"pad_token_id": 1, "type_vocab_size": 1}),
    "electra": lambda: _of("Electra", **_BERT, embedding_size=32),
    "distilbert": lambda: _of(
        "DistilBert", **_SIZES, dim=64, n_layers=2, n_heads=4, hidden_dim=96, max_position_embeddings=80
    ),
    "mpnet": lambda: _of("MPNet", **_BERT | {"pad_token_id": 1}),
    "albert": lambda: _of("Albert", **_BERT, embedding_size=32, inner_group_num=2, num_hidden_groups=2),
    "albert, one layer four times": lambda: _of("Albert", **_BERT | {"num_hidden_layers": 4}, embedding_size=32),
    "modernbert": modernbert,
    "modernbert, local at the end": lambda: modernbert(num_hidden_layers=2),
    "deberta-v2": deberta,
}


def inputs(model: Any, texts: int, tokens: int, token_types: bool = False) -> dict[str, torch.Tensor]:
    """Random texts; every second one is padded, the last down to two tokens."""
    mask = torch.ones(texts, tokens, dtype=torch.long)
    mask[1::2, max(2, 2 * tokens // 3) :] = 0
    if texts > 2:
        mask[-1, 2:] = 0
    draw = torch.Generator().manual_seed(tokens)
    ids = torch.randint(3, VOCABULARY, (texts, tokens), generator=draw)
    values = {"input_ids": ids.masked_fill(mask == 0, model.config.pad_token_id), "attention_mask": mask}
    if token_types:
        values["token_type_ids"] = (torch.arange(tokens) > tokens // 2).long().expand(texts, tokens) * mask
    return values


def logits(model: Any, values: dict[str, torch.Tensor]) -> torch.Tensor:
    """What the model itself says."""
    with torch.no_grad():
        answer: torch.Tensor = model(**values).logits
    return answer


def reduced(model: Any, task: Task = "sequence-classification") -> tuple[Exported, str]:
    """The model without the work that its answers do not need, and what the log says of that."""
    lines: list[str] = []
    module = reduce(model, task, lines.append)
    return module, "\n".join(lines)


def assert_same_logits(module: Exported, model: Any, texts: int, tokens: int) -> None:
    """What is exported says what the model says."""
    values = inputs(model, texts, tokens, token_types="token_type_ids" in module.inputs)
    with torch.no_grad():
        torch.testing.assert_close(module(**values), logits(model, values), rtol=1e-5, atol=2e-5)
