"""Models and recipes for packed artifacts, and what it means that two loaded models are the same."""

from collections.abc import Callable
from typing import Any

import tiny
import torch
import transformers as hf

STEP: dict[str, Any] = {"prune": {"amount": 0.3}, "quantize": {"step": 0.25}, "cast": {}}
PLAIN: dict[str, dict[str, Any]] = {
    "nothing": {},
    "half": {"cast": {}},
    "bfloat16": {"cast": {"dtype": "bfloat16", "compute": "stored"}},
    "pruned": {"prune": {"amount": 0.3}, "cast": {}},
    "bits": {"quantize": {"bits": 8}, "cast": {}},
    "step": STEP,
}
BITSANDBYTES: dict[str, dict[str, Any]] = {
    "int8": {"bitsandbytes": {}},
    "nf4": {"bitsandbytes": {"bits": 4}},
}
BALANCED: dict[str, Any] = {
    "prune": {"amount": 0.3},
    "threshold": {"value": 1e-3},
    "quantize": {"bits": 8, "roles": ["embedding"]},
    "bitsandbytes": {},
    "cast": {"compute": "auto"},
}
QUERY = "bert.encoder.layer.0.attention.self.query.weight"
LINEAR = {"int8": "Linear8bitLt", "nf4": "Linear4bit"}


def mixtral() -> hf.PreTrainedModel:
    """Its experts are stored one by one and merged into one parameter while loading."""
    torch.manual_seed(0)
    config = hf.MixtralConfig(
        vocab_size=tiny.VOCABULARY, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, num_local_experts=4, max_position_embeddings=32, initializer_range=0.3,
    )  # fmt: skip
    return hf.MixtralForCausalLM(config)


MODELS: dict[str, Callable[[], hf.PreTrainedModel]] = {
    "bert": tiny.bert,
    "gpt2": tiny.gpt2,
    "llama": tiny.llama,
    "t5": tiny.t5,
    "mixtral": mixtral,
    "gpt_oss": tiny.gpt_oss,
    "xlnet": tiny.xlnet,
    "funnel": tiny.funnel,
    "wav2vec2": tiny.wav2vec2,
}


def answer(model: Any) -> torch.Tensor:
    """Its first output, for inputs that suit it."""
    name = model.main_input_name
    random = torch.Generator().manual_seed(0)
    match name:
        case "pixel_values":
            size = model.config.image_size
            inputs = {name: torch.randn(1, 3, size, size, generator=random)}
        case "input_values":
            inputs = {name: torch.randn(1, 400, generator=random)}
        case "input_features":
            mels, positions = model.config.num_mel_bins, model.config.max_source_positions
            inputs = {name: torch.randn(1, mels, 2 * positions, generator=random)}
        case _:
            inputs = {name: torch.arange(10).reshape(2, 5) % model.config.get_text_config().vocab_size}
    if isinstance(model, hf.CLIPModel):
        size = model.config.vision_config.image_size
        inputs["pixel_values"] = torch.randn(1, 3, size, size, generator=random)
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = inputs.get("input_ids", torch.zeros(1, 3, dtype=torch.long))
    with torch.no_grad():
        output: torch.Tensor = model(
            **{key: value.to(model.dtype) if value.is_floating_point() else value for key, value in inputs.items()}
        )[0]
    return output


def assert_same(found: Any, expected: Any) -> None:
    """The same class, settings, tensors and answers."""
    assert type(found) is type(expected)
    assert (found.training, found.dtype) == (expected.training, expected.dtype)
    ours, theirs = found.config.to_dict(), expected.config.to_dict()
    for config in (ours, theirs):
        config.pop("_name_or_path", None)
    assert ours.pop("quantization_config", None) == theirs.pop("quantization_config", None)
    assert ours == theirs
    for tensors, others in (
        (found.state_dict(), expected.state_dict()),
        (dict(found.named_buffers()), dict(expected.named_buffers())),
    ):
        assert list(tensors) == list(others)
        for name, tensor in tensors.items():
            assert (tensor.dtype, tensor.shape) == (others[name].dtype, others[name].shape), name
            assert torch.equal(tensor, others[name]), name
    for name, parameter in found.named_parameters():
        assert parameter.requires_grad == expected.get_parameter(name).requires_grad, name
    # Equal tensors, but memory that is aligned otherwise is summed in another order.
    torch.testing.assert_close(answer(found), answer(expected), rtol=1e-5, atol=1e-6)


def kinds(model: Any) -> set[str]:
    return {type(module).__name__ for module in model.modules() if "Linear" in type(module).__name__}
