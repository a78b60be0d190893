"""The rows of the matrix: a tiny model of each family, head and layout, as the directory that people have."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import tiny
import torch
import transformers
from matrix_answers import Inputs
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from tests.conftest import plain_tokenizer
from tests.engines.families import FAMILIES

_DRAW = torch.Generator().manual_seed(0)
_IDS = torch.randint(3, 22, (8, 12), generator=_DRAW)  # words that graphs are calibrated on; none of them pads
TEXT: Inputs = {"input_ids": _IDS, "attention_mask": torch.ones_like(_IDS)}
TWO_TEXTS: Inputs = {**TEXT, "decoder_input_ids": _IDS[:, :5].flip(1)}
IMAGE: Inputs = {"pixel_values": torch.randn(2, 3, 16, 16, generator=_DRAW)}
SOUND: Inputs = {"input_values": torch.randn(2, 400, generator=_DRAW)}
SPECTROGRAM: Inputs = {
    "input_features": torch.randn(2, 8, 32, generator=_DRAW), "decoder_input_ids": TWO_TEXTS["decoder_input_ids"]
}  # fmt: skip

_SPREAD = 0.15  # of weights: answers stay within what float16 holds, whatever the depth
_VOCABULARY = {"vocab_size": tiny.VOCABULARY}
_PADS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_SIZE = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
_BERT = _SIZE | _VOCABULARY | {"max_position_embeddings": 32}
_LLAMA = _BERT | _PADS | {"num_key_value_heads": 1, "tie_word_embeddings": False}
_EXPERTS = _LLAMA | {"num_hidden_layers": 1, "num_experts_per_tok": 2}
_SEQ2SEQ = _VOCABULARY | _PADS | {"d_model": 64, "decoder_start_token_id": 1}
_BART = _SEQ2SEQ | {
    f"{side}_{name}": value
    for side in ("encoder", "decoder")
    for name, value in {"layers": 1, "ffn_dim": 128, "attention_heads": 2}.items()
}
_SEES = _SIZE | {"image_size": 16, "patch_size": 8}
_HEARS = {
    "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64, "conv_dim": (16, 16),
    "conv_stride": (2, 2), "conv_kernel": (3, 3), "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2, "num_labels": 3, "classifier_proj_size": 32,
}  # fmt: skip


class Original(NamedTuple):
    """One row: what it is called in the documents, how to write it, and what it and its artifacts are asked.

    `save` writes it into an empty directory that is there.
    """

    title: str
    save: Callable[[Path], None]
    inputs: Inputs = TEXT


def built(kind: str, head: str, **config: Any) -> PreTrainedModel:
    """A model of `kind` with a `head`, by the names of transformers' classes."""
    model: PreTrainedModel = getattr(transformers, f"{kind}{head}")(getattr(transformers, f"{kind}Config")(**config))
    return model


def drawn(model: PreTrainedModel) -> PreTrainedModel:
    """The model with a value of its own in every place, seeded: nothing that is lost or swapped is a zero or a one."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=_SPREAD)
            elif parameter.dim() == 1:
                parameter.normal_(mean=float(parameter.mean() > 0.5), std=_SPREAD)
        for module in model.modules():
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                module.weight[module.padding_idx] = 0  # as in any model: transformers sees to it for some when it loads
        for name, buffer in model.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.uniform_(0.5, 1.5)
    return model.eval()


def _plain(build: Callable[[], PreTrainedModel], directory: Path, **options: Any) -> None:
    """As save_pretrained leaves it, with a tokenizer; models that take none do not mind."""
    drawn(build()).save_pretrained(directory, **options)
    plain_tokenizer().save_pretrained(directory)


def _of(title: str, build: Callable[[], PreTrainedModel], inputs: Inputs = TEXT) -> Original:
    return Original(title, partial(_plain, build), inputs)


def _model(title: str, kind: str, head: str, inputs: Inputs = TEXT, **config: Any) -> Original:
    return _of(title, partial(built, kind, head, **config), inputs)


def _bert(head: str = "ForSequenceClassification", **config: Any) -> PreTrainedModel:
    return built("Bert", head, **_BERT | {"num_labels": 3} | config)


# layouts


def _stored_as(dtype: torch.dtype, build: Callable[[], PreTrainedModel], directory: Path) -> None:
    _plain(lambda: build().to(dtype), directory)


def _mixed(directory: Path) -> None:
    """float16 layers beside float32 ones, of which config.json says nothing: what tools that edit files leave."""
    _plain(_bert, directory)
    _edit(directory, lambda name, tensor: tensor.half() if ".layer.0." in name else tensor)


def _with_unknown_tensors(directory: Path) -> None:
    """A matrix and a vector that the model does not know."""
    _plain(_bert, directory)
    _edit(directory, more={"extra.weight": torch.randn(64, 64), "extra.steps": torch.arange(3)})


def _with_buffers(directory: Path) -> None:
    """Positions that transformers stored once and makes anew today."""
    _plain(_bert, directory)
    _edit(directory, more={"bert.embeddings.position_ids": torch.arange(32).reshape(1, 32)})


def _with_a_subfolder(directory: Path) -> None:
    """Another model's shards below, under an index of their own."""
    _plain(_bert, directory)
    _plain(_bert, directory / "adapted", max_shard_size="100KB")


def _sentence_transformer(directory: Path, encoder: str = "") -> None:
    """Its modules in folders; the encoder in the root, as it is today, or in `0_Transformer`, as it was."""
    place = directory / encoder
    place.mkdir(exist_ok=True)
    _plain(partial(_bert, "Model"), place)
    kinds = {encoder: "Transformer", "1_Pooling": "Pooling", "2_Dense": "Dense"}
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(kinds.items())
    ]
    _json(directory / "modules.json", modules)
    _json(directory / "1_Pooling" / "config.json", {"word_embedding_dimension": 64, "pooling_mode_mean_tokens": True})
    activation = "torch.nn.modules.activation.Tanh"
    _json(
        directory / "2_Dense" / "config.json",
        {"in_features": 64, "out_features": 32, "bias": True, "activation_function": activation},
    )
    dense = {"linear.weight": _SPREAD * torch.randn(32, 64), "linear.bias": torch.randn(32)}
    save_file(dense, directory / "2_Dense" / "model.safetensors")


def _json(path: Path, values: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(values))


def _edit(
    directory: Path,
    change: Callable[[str, Tensor], Tensor] = lambda name, tensor: tensor,
    more: Mapping[str, Tensor] | None = None,
) -> None:
    path = directory / "model.safetensors"
    values = {name: change(name, tensor) for name, tensor in load_file(path).items()}
    save_file(values | dict(more or {}), path, {"format": "pt"})


_NARROW = _BERT | {"num_labels": 3}
ENCODERS: dict[str, Original] = {
    **{
        name: _of(title, FAMILIES[name])
        for name, title in {
            "bert": "BERT",
            "roberta": "RoBERTa",
            "xlm-roberta": "XLM-RoBERTa",
            "deberta-v2": "DeBERTa-v2",
            "distilbert": "DistilBERT",
            "albert": "ALBERT",
            "electra": "ELECTRA",
            "mpnet": "MPNet",
            "modernbert": "ModernBERT",
        }.items()
    },
    "mobilebert": _model(
        "MobileBERT", "MobileBert", "ForSequenceClassification",
        **_NARROW, embedding_size=32, intra_bottleneck_size=32, num_feedforward_networks=2,
    ),
    "funnel": _of("Funnel", tiny.funnel),
    "xlnet": _of("XLNet", tiny.xlnet),
}  # fmt: skip
DECODERS: dict[str, Original] = {
    "gpt2": _of("GPT-2", tiny.gpt2),
    "llama": _model("Llama", "Llama", "ForCausalLM", **_LLAMA),
    "llama-tied": _of("Llama, tied output", tiny.llama),
    "llama-classifier": _model("Llama, classifier", "Llama", "ForSequenceClassification", **_LLAMA, num_labels=3),
    "qwen2": _model("Qwen 2", "Qwen2", "ForCausalLM", **_LLAMA),
    "qwen3": _model("Qwen 3", "Qwen3", "ForCausalLM", **_LLAMA, head_dim=32),
    "phi3": _model("Phi-3", "Phi3", "ForCausalLM", **_LLAMA),
    "bloom": _model("Bloom", "Bloom", "ForCausalLM", **_VOCABULARY, **_PADS, hidden_size=64, n_layer=2, n_head=2),
    "mixtral": _of("Mixtral", tiny.mixtral),
    "qwen2-moe": _model(
        "Qwen 2 MoE", "Qwen2Moe", "ForCausalLM",
        **_EXPERTS, num_experts=4, moe_intermediate_size=64, shared_expert_intermediate_size=64,
    ),
    "gpt-oss": _of("GPT-OSS", tiny.gpt_oss),
}  # fmt: skip
OTHERS: dict[str, Original] = {
    "t5": _model(
        "T5", "T5", "ForConditionalGeneration", TWO_TEXTS, **_SEQ2SEQ, d_kv=32, d_ff=128, num_layers=1, num_heads=2
    ),
    "bart": _model("BART", "Bart", "ForConditionalGeneration", TWO_TEXTS, **_BART, max_position_embeddings=32),
    "vit": _model("ViT", "ViT", "ForImageClassification", IMAGE, **_SEES, num_labels=3),
    "swin": _of("Swin", tiny.swin, IMAGE),
    "resnet": _of("ResNet", tiny.resnet, IMAGE),
    "siglip": _of("SigLIP, image classifier", tiny.siglip, IMAGE),
    "clip": _model(
        "CLIP", "CLIP", "Model", {**TEXT, **IMAGE},
        text_config=_BERT | _PADS, vision_config=_SEES, projection_dim=32,
    ),
    "whisper": _model(
        "Whisper", "Whisper", "ForConditionalGeneration", SPECTROGRAM,
        **_BART, num_mel_bins=8, max_source_positions=16, max_target_positions=16,
    ),
    "wav2vec2": _model("Wav2Vec2", "Wav2Vec2", "ForSequenceClassification", SOUND, **_HEARS),
    "hubert": _model("HuBERT", "Hubert", "ForSequenceClassification", SOUND, **_HEARS),
}  # fmt: skip
HEADS: dict[str, Original] = {
    "token-classification": _of("BERT, token classification", partial(_bert, "ForTokenClassification")),
    "question-answering": _of("BERT, question answering", partial(_bert, "ForQuestionAnswering", num_labels=2)),
    "multi-label": _of("BERT, several labels", partial(_bert, problem_type="multi_label_classification")),
    "regression": _of("BERT, regression", partial(_bert, num_labels=1, problem_type="regression")),
    "masked-lm": _of("BERT, masked language", partial(_bert, "ForMaskedLM")),
    "embeddings": _of("BERT, embeddings", partial(_bert, "Model")),
}
LAYOUTS: dict[str, Original] = {
    "bfloat16": Original("BERT in bfloat16", partial(_stored_as, torch.bfloat16, _bert)),
    "float16": Original("BERT in float16", partial(_stored_as, torch.float16, _bert)),
    "mixed": Original("BERT, float16 beside float32", _mixed),
    "llama-bfloat16": Original(
        "Llama in bfloat16", partial(_stored_as, torch.bfloat16, partial(built, "Llama", "ForCausalLM", **_LLAMA))
    ),
    "fused": Original("Mixtral, experts in one tensor", partial(_plain, tiny.mixtral, save_original_format=False)),
    "shards": Original("BERT in shards", partial(_plain, _bert, max_shard_size="100KB")),
    "unknown-tensors": Original("BERT with unknown tensors", _with_unknown_tensors),
    "buffers": Original("BERT with stored buffers", _with_buffers),
    "subfolder": Original("BERT with a subfolder of weights and their index", _with_a_subfolder),
    "sentence-transformers": Original("sentence-transformers with 1_Pooling, 2_Dense", _sentence_transformer),
    "0_Transformer": Original(
        "sentence-transformers with 0_Transformer", partial(_sentence_transformer, encoder="0_Transformer")
    ),
}
ORIGINALS: dict[str, Original] = ENCODERS | DECODERS | OTHERS | HEADS | LAYOUTS
"""The rows of the matrix by name, in the order of the documents."""
