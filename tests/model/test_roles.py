"""Roles: what each tensor of a checkpoint is for, whatever it is called there."""

from pathlib import Path

import pytest
import tiny
import torch
from transformers import MixtralConfig, MixtralForCausalLM, PreTrainedModel

from optimizer.model.roles import places
from optimizer.model.weight import ROLES, Place


def of(model: PreTrainedModel) -> dict[str, Place]:
    return places(model, model.state_dict())


def test_a_bert_classifier() -> None:
    found = of(tiny.bert())
    layer = "bert.encoder.layer.0."
    assert found[f"{layer}attention.self.query.weight"] == Place(
        f"{layer}attention.self.query.weight", f"{layer}attention.self.query", "linear", -1
    )
    assert found[f"{layer}attention.self.query.bias"].role == "bias"
    assert found[f"{layer}output.LayerNorm.weight"].role == "norm"
    assert found[f"{layer}output.LayerNorm.bias"].role == "bias"
    assert found["bert.embeddings.word_embeddings.weight"].role == "embedding"
    assert found["bert.embeddings.position_embeddings.weight"].role == "embedding"
    assert found["classifier.weight"].role == "linear"


def test_the_transposed_layers_of_gpt2() -> None:
    found = of(tiny.gpt2())
    assert found["transformer.h.0.attn.c_attn.weight"].role == "linear"
    assert found["transformer.h.0.attn.c_attn.weight"].input_axis == 0
    assert found["transformer.h.0.attn.c_attn.bias"].role == "bias"
    assert found["transformer.wte.weight"].role == "embedding"
    assert found["transformer.h.0.ln_1.weight"].role == "norm"


def test_rms_norms_of_llama_and_t5() -> None:
    assert of(tiny.llama())["model.layers.0.input_layernorm.weight"].role == "norm"
    assert of(tiny.t5())["encoder.block.0.layer.0.layer_norm.weight"].role == "norm"


def test_a_convolution_and_what_is_none_of_these() -> None:
    found = of(tiny.vit())
    assert found["vit.embeddings.patch_embeddings.projection.weight"].role == "convolution"
    assert found["vit.embeddings.cls_token"].role == "other"


@pytest.mark.parametrize("build", [tiny.bert, tiny.gpt2, tiny.llama, tiny.t5, tiny.vit])
def test_every_tensor_of_a_model_has_a_place(build: object) -> None:
    model: PreTrainedModel = build()  # type: ignore[operator]
    found = of(model)
    assert set(found) == set(model.state_dict())
    assert {place.role for place in found.values()} <= set(ROLES)
    assert all(place.parameter == name for name, place in found.items())


def test_a_prefix_that_the_checkpoint_lacks_or_has_too_much() -> None:
    with_head = tiny.bert()
    found = places(with_head, ["embeddings.word_embeddings.weight", "classifier.weight"])
    assert found["embeddings.word_embeddings.weight"].parameter == "bert.embeddings.word_embeddings.weight"
    assert found["classifier.weight"].parameter == "classifier.weight"
    without: PreTrainedModel = with_head.base_model
    assert places(without, ["bert.embeddings.word_embeddings.weight", "classifier.weight"]) == {
        "bert.embeddings.word_embeddings.weight": Place(
            "embeddings.word_embeddings.weight", "embeddings.word_embeddings", "embedding", -1
        )
    }


def test_the_old_names_of_norms() -> None:
    found = places(tiny.bert(), ["bert.embeddings.LayerNorm.gamma", "bert.embeddings.LayerNorm.beta"])
    assert found["bert.embeddings.LayerNorm.gamma"].parameter == "bert.embeddings.LayerNorm.weight"
    assert [place.role for place in found.values()] == ["norm", "bias"]


def test_what_the_model_does_not_know_has_no_place() -> None:
    assert places(tiny.bert(), ["bert.pooler.extra", "lm_head.weight", ""]) == {}
    assert places(tiny.bert(), []) == {}


def test_experts_that_are_merged_while_loading(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=32,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=2,
        max_position_embeddings=16,
    )
    model = MixtralForCausalLM(config)
    names = [
        f"model.layers.0.block_sparse_moe.experts.{expert}.{part}.weight" for expert in (0, 1) for part in ("w1", "w2")
    ]
    found = places(model, names)
    assert set(found) == set(names)
    assert {place.role for place in found.values()} == {"linear"}
