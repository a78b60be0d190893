"""Roles: what each tensor of a checkpoint is for, whatever it is called there."""

from collections.abc import Callable

import pytest
import tiny
import torch
from transformers import PreTrainedModel

from optimizer.model.roles import places
from optimizer.model.weight import ROLES, Place, Role


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


def test_experts_that_are_merged_while_loading() -> None:
    experts = "model.layers.0.block_sparse_moe.experts"
    names = [f"{experts}.{expert}.{part}.weight" for expert in (0, 1) for part in ("w1", "w2", "w3")]
    found = places(tiny.mixtral(), names)
    assert set(found) == set(names)
    assert {(place.role, place.input_axis) for place in found.values()} == {("linear", -1)}


EXPERTS = "model.layers.0.mlp.experts"
GPT_OSS = {
    f"{EXPERTS}.gate_up_proj": ("linear", -2),
    f"{EXPERTS}.gate_up_proj_bias": ("bias", -1),
    f"{EXPERTS}.down_proj": ("linear", -2),
    f"{EXPERTS}.down_proj_bias": ("bias", -1),
    "model.layers.0.mlp.router.weight": ("other", -1),
    "model.layers.0.mlp.router.bias": ("bias", -1),
}
MIXTRAL = {
    f"{EXPERTS}.gate_up_proj": ("linear", -1),
    f"{EXPERTS}.down_proj": ("linear", -1),
    "model.layers.0.mlp.gate.weight": ("other", -1),
}
XLNET = {f"transformer.layer.0.rel_attn.{name}": ("linear", 0) for name in "qkvr"} | {
    "transformer.layer.0.rel_attn.o": ("linear", -1),
    "transformer.layer.0.rel_attn.r_w_bias": ("bias", -1),
    "transformer.layer.0.rel_attn.seg_embed": ("other", -1),
}
FUNNEL = {"funnel.encoder.blocks.0.0.attention.r_kernel": ("linear", 0)}
NORMED = "wav2vec2.encoder.pos_conv_embed.conv.parametrizations.weight"
WAV2VEC2 = {
    f"{NORMED}.original0": ("other", -1),
    f"{NORMED}.original1": ("convolution", -1),
    "wav2vec2.encoder.pos_conv_embed.conv.bias": ("bias", -1),
}


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (tiny.gpt_oss, GPT_OSS),
        (tiny.mixtral, MIXTRAL),
        (tiny.xlnet, XLNET),
        (tiny.funnel, FUNNEL),
        (tiny.wav2vec2, WAV2VEC2),
    ],
)
def test_matrices_that_are_no_layers_weight(
    build: Callable[[], PreTrainedModel], expected: dict[str, tuple[Role, int]]
) -> None:
    found = of(build())
    assert {name: (found[name].role, found[name].input_axis) for name in expected} == expected


@pytest.mark.parametrize("build", [tiny.gpt_oss, tiny.mixtral])
def test_the_inputs_of_experts_are_where_the_model_multiplies_them(build: Callable[[], PreTrainedModel]) -> None:
    """Without the first half of its hidden states, an expert needs no weight of theirs."""
    model = build().eval()
    place = of(model)[f"{EXPERTS}.gate_up_proj"]
    experts = model.get_submodule(place.module)
    width = model.config.hidden_size
    states = torch.randn(5, width, generator=torch.Generator().manual_seed(0))
    states[:, : width // 2] = 0
    chosen, share = torch.zeros(5, 1, dtype=torch.long), torch.ones(5, 1)
    with torch.no_grad():
        before = experts(states, chosen, share)
        assert experts.gate_up_proj.shape[place.input_axis] == width
        experts.gate_up_proj.narrow(place.input_axis, 0, width // 2).zero_()
        assert torch.equal(experts(states, chosen, share), before)
        experts.gate_up_proj.zero_()
        assert not torch.equal(experts(states, chosen, share), before)
