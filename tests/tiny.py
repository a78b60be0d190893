"""Tiny models with random weights, as the directories that people have, and the short way from one to an artifact."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    FunnelConfig,
    FunnelForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
    SiglipConfig,
    SiglipForImageClassification,
    SwinConfig,
    SwinForImageClassification,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
    Wav2Vec2Config,
    Wav2Vec2ForSequenceClassification,
    XLNetConfig,
    XLNetForSequenceClassification,
)

import optimizer
from optimizer.artifact.write import write
from optimizer.manifest import Manifest
from optimizer.model.checkpoint import open_checkpoint
from optimizer.model.examples import Examples
from optimizer.model.outline import Entry, Outline, sketch
from optimizer.model.weight import Parts, Place
from optimizer.recipe import parse
from optimizer.stages.stage import Context
from optimizer.stages.staging import Staged

VOCABULARY = 96
_SPREAD = 0.3  # wide enough for quantization to show in the logits
INPUTS = {"input_ids": torch.arange(24).reshape(2, 12) * 3 % VOCABULARY}


def bert(**changes: Any) -> PreTrainedModel:
    """A classifier of three labels; all its linear shapes suit the 4-bit kernel."""
    config: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 128,
        "max_position_embeddings": 32,
        "initializer_range": _SPREAD,
        "num_labels": 3,
    }
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(**config | changes))


def distilbert() -> PreTrainedModel:
    """A linear layer before the head whose name ends in the head's."""
    torch.manual_seed(0)
    config = DistilBertConfig(
        vocab_size=VOCABULARY, dim=64, n_layers=1, n_heads=2, hidden_dim=128, max_position_embeddings=32,
        initializer_range=_SPREAD, num_labels=3, pad_token_id=0,
    )  # fmt: skip
    return DistilBertForSequenceClassification(config)


def gpt2() -> PreTrainedModel:
    """Conv1D layers, an output tied to the embeddings."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_embd=64, n_layer=2, n_head=2, n_positions=32, initializer_range=_SPREAD,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def llama(**changes: Any) -> PreTrainedModel:
    """No biases, an output tied to the embeddings."""
    config: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 128,
        "max_position_embeddings": 32,
        "initializer_range": _SPREAD,
        "tie_word_embeddings": True,
    }
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**config | changes))


def t5() -> PreTrainedModel:
    """Three names for one embedding."""
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=VOCABULARY, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, decoder_start_token_id=0
    )
    return T5ForConditionalGeneration(config)


def vit() -> PreTrainedModel:
    """A convolution before the layers."""
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=16, patch_size=8
    )
    return ViTForImageClassification(config)


def siglip() -> PreTrainedModel:
    """A head with torch's own attention, which computes with its layers' weights itself."""
    torch.manual_seed(0)
    vision = {
        "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 128,
        "image_size": 16, "patch_size": 8,
    }  # fmt: skip
    return SiglipForImageClassification(SiglipConfig(vision_config=vision, num_labels=3))


def swin() -> PreTrainedModel:
    """No embedding; matrices of positions that are no layer's weight."""
    torch.manual_seed(0)
    config = SwinConfig(
        image_size=16, patch_size=2, embed_dim=16, depths=[1, 1], num_heads=[1, 2], window_size=2, num_labels=3
    )
    return SwinForImageClassification(config)


def mixtral() -> PreTrainedModel:
    """Experts that a file holds one by one and transformers merges."""
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=VOCABULARY, hidden_size=64, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=128, num_local_experts=4, max_position_embeddings=32, initializer_range=_SPREAD,
    )  # fmt: skip
    return MixtralForCausalLM(config)


def gpt_oss() -> PreTrainedModel:
    """Experts in one tensor [experts, inputs, outputs], with biases."""
    torch.manual_seed(0)
    config = GptOssConfig(
        vocab_size=VOCABULARY, hidden_size=64, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
        head_dim=32, intermediate_size=48, num_local_experts=4, initializer_range=_SPREAD,
    )  # fmt: skip
    return GptOssForCausalLM(config)


def xlnet() -> PreTrainedModel:
    """Projections of three axes, which are parameters of the attention itself."""
    torch.manual_seed(0)
    config = XLNetConfig(
        vocab_size=VOCABULARY, d_model=64, n_layer=1, n_head=2, d_inner=128, initializer_range=_SPREAD, num_labels=3
    )
    return XLNetForSequenceClassification(config)


def funnel() -> PreTrainedModel:
    """A projection of positions in three axes."""
    torch.manual_seed(0)
    config = FunnelConfig(
        vocab_size=VOCABULARY, block_sizes=[1, 1], num_decoder_layers=1, d_model=64, n_head=2, d_head=32, d_inner=128,
        num_labels=3,
    )  # fmt: skip
    return FunnelForSequenceClassification(config)


def resnet() -> PreTrainedModel:
    """Convolutions, and no linear layer but the head."""
    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic", num_labels=3)
    return ResNetForImageClassification(config)


def wav2vec2() -> PreTrainedModel:
    """Convolutions, one of them in two tensors with "weight" in the middle of their names."""
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, conv_dim=(16, 16),
        conv_stride=(2, 2), conv_kernel=(3, 3), num_feat_extract_layers=2, num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2, num_labels=3, classifier_proj_size=16,
    )  # fmt: skip
    return Wav2Vec2ForSequenceClassification(config)


def save(model: PreTrainedModel, directory: Path, shard_size: str = "50GB", *, fused: bool = False) -> Path:
    """The directory as save_pretrained writes it; `fused` experts are in one tensor, as in the model."""
    model.save_pretrained(directory, max_shard_size=shard_size, save_original_format=not fused)
    return directory


def save_legacy(model: PreTrainedModel, directory: Path, shards: int = 1, *, zipped: bool = True) -> Path:
    """The directory as save_pretrained wrote it before safetensors: tied weights stored under each name."""
    directory.mkdir()
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(directory)
    state = model.state_dict()
    if shards == 1:
        torch.save(state, directory / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
        return directory
    names = list(state)
    weight_map: dict[str, str] = {}
    for number in range(shards):
        file = f"pytorch_model-{number + 1:05}-of-{shards:05}.bin"
        part = names[number::shards]
        torch.save({name: state[name].clone() for name in part}, directory / file)
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return directory


def outline(*tensors: torch.Tensor, input_axis: int = -1, **changes: Any) -> Outline:
    """The outline of a model of linear weights, "0", "1" and so on."""
    entries = {
        str(number): Entry(
            str(number), tuple(tensor.shape), tensor.dtype, "file", Place(str(number), "", "linear", input_axis)
        )
        for number, tensor in enumerate(tensors)
    }
    return Outline(**{"config": {}, "task": "encoder", "entries": entries, "linear": {}} | changes)


def change_config(directory: Path, **changes: Any) -> None:
    """Set keys of a directory's config.json."""
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _nothing() -> NoReturn:
    raise AssertionError("a stage that needs neither model nor texts asked for them")


CONTEXT = Context(sketch(), {}, lambda line: None, _nothing, _nothing, _nothing)
"""For stages that look at one weight at a time."""


def staged(
    original: Path,
    stages: Mapping[str, Any],
    log: Callable[[str], None] = lambda line: None,
    examples: Callable[[], Examples] | None = None,
) -> Staged:
    """The checkpoint in `original` with the stages of a recipe made ready."""
    return parse({"stages": stages}).staged(open_checkpoint(original), original.name, log, examples)


def optimize(original: Path, place: Path, stages: Mapping[str, Any], **keys: Any) -> Manifest:
    """Apply a recipe with these stages and other keys; the artifact is at `place`."""
    recipe = parse({"name": "tiny", "stages": stages, **keys})
    return write(recipe.staged(open_checkpoint(original), original.name, lambda line: None), place)


def shipped(original: Path, place: Path, recipe: str, *settings: str, log: Callable[[str], None] = print) -> Manifest:
    """Apply a recipe that comes with the program, with these settings as on the command line."""
    made = parse(optimizer.compose(f"recipe={recipe}", f"model.path={original}", *settings))
    return write(made.staged(open_checkpoint(original), original.name, log), place)


def values(at: Staged) -> dict[str, torch.Tensor]:
    """Every tensor as a dense artifact stores it."""
    found: dict[str, torch.Tensor] = {}
    for shard in at.original.shards:
        for weight in at.stream(shard):
            found |= weight.stored.tensors if isinstance(weight.stored, Parts) else {weight.name: weight.tensor}
    return found
