"""Vectors of tokens: each way of pooling by hand, the modules after it, and what is refused."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from optimizer.errors import ModelError
from optimizer.model.embedding import Embedder, Reading, embedder, reading

STATES = torch.tensor([[[1.0, -1.0], [2.0, 5.0], [4.0, 0.0]], [[3.0, 3.0], [9.0, 9.0], [9.0, 9.0]]])
MASK = torch.tensor([[1, 1, 1], [1, 0, 0]])
TYPES = {"Pooling": "1_Pooling", "Dense": "2_Dense", "LayerNorm": "3_LayerNorm", "Normalize": "4_Normalize"}


@pytest.fixture
def build(tiny_model: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """`build(*kinds, **settings)`: a model with these modules; `Pooling={…}` is the configuration of one."""

    def make(*kinds: str, **settings: dict[str, Any]) -> Path:
        directory = tiny_model("encoder", tmp_path / "model")
        entries = [{"path": TYPES.get(kind, ""), "type": f"sentence_transformers.models.{kind}"} for kind in kinds]
        (directory / "modules.json").write_text(json.dumps(entries))
        for kind, folder in TYPES.items():
            (directory / folder).mkdir()
            (directory / folder / "config.json").write_text(json.dumps(settings.get(kind, {})))
        return directory

    return make


@pytest.mark.parametrize(
    ("mode", "first", "second"),
    [
        ("cls", [1, -1], [3, 3]),
        ("lasttoken", [4, 0], [3, 3]),
        ("max", [4, 5], [3, 3]),
        ("mean", [7 / 3, 4 / 3], [3, 3]),
        ("mean_sqrt_len_tokens", [7 / math.sqrt(3), 4 / math.sqrt(3)], [3, 3]),
        ("weightedmean", [17 / 6, 9 / 6], [3, 3]),
    ],
)
def test_each_way_of_pooling_leaves_padding_out(mode: str, first: list[float], second: list[float]) -> None:
    found = Embedder((mode,))(STATES, MASK)
    assert found.tolist() == [pytest.approx(first), pytest.approx(second)]


def test_several_stand_side_by_side_in_the_order_of_the_library(build: Callable[..., Path]) -> None:
    flags = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True, "pooling_mode_max_tokens": False}
    found = embedder(build("Transformer", "Pooling", Pooling=flags))
    assert found.modes == ("cls", "mean")
    assert found(STATES, MASK)[0].tolist() == pytest.approx([1, -1, 7 / 3, 4 / 3])


@pytest.mark.parametrize(("config", "modes"), [({}, ("mean",)), ({"pooling_mode": "cls"}, ("cls",))])
def test_the_mean_is_the_default_and_newer_files_name_one(
    build: Callable[..., Path], config: dict[str, Any], modes: tuple[str, ...]
) -> None:
    assert embedder(build("Transformer", "Pooling", Pooling=config)).modes == modes


def test_a_prompt_that_is_not_to_be_pooled_is_left_out(build: Callable[..., Path]) -> None:
    directory = build("Transformer", "Pooling", Pooling={"pooling_mode": "mean", "include_prompt": False})
    assert embedder(directory).skipped == 0
    prompts = {"prompts": {"query": "the cat "}, "default_prompt_name": "query"}
    (directory / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    assert embedder(directory).skipped == 3  # [CLS] and two words, without [SEP]
    assert Embedder(("weightedmean",), skipped=1)(STATES, MASK)[0].tolist() == pytest.approx([16 / 5, 10 / 5])
    assert reading(directory) == Reading("the cat ", False, None)


def test_dense_norm_and_normalization_follow(build: Callable[..., Path]) -> None:
    dense = {"in_features": 2, "out_features": 2, "activation_function": "torch.nn.modules.linear.Identity"}
    directory = build("Transformer", "Pooling", "Dense", "Normalize", Pooling={"pooling_mode": "cls"}, Dense=dense)
    save_file(
        {"linear.weight": torch.tensor([[3.0, 0.0], [0.0, 4.0]]), "linear.bias": torch.tensor([0.0, 0.0])},
        directory / "2_Dense" / "model.safetensors",
    )
    found = embedder(directory)(STATES, MASK)
    assert found[0].tolist() == pytest.approx([0.6, -0.8])
    assert found.norm(dim=1).tolist() == pytest.approx([1, 1])


def test_tanh_is_the_activation_that_is_not_named_or_not_torchs(build: Callable[..., Path]) -> None:
    dense = {"in_features": 2, "out_features": 1, "activation_function": "os.system"}
    directory = build("Transformer", "Pooling", "Dense", Pooling={"pooling_mode": "cls"}, Dense=dense)
    save_file({"linear.weight": torch.tensor([[1.0, 0.0]])}, directory / "2_Dense" / "model.safetensors")
    assert embedder(directory)(STATES, MASK)[:, 0].tolist() == pytest.approx([math.tanh(1), math.tanh(3)])


def test_a_residual_is_added_as_it_is_or_projected(build: Callable[..., Path]) -> None:
    dense = {"use_residual": True, "activation_function": "torch.nn.modules.linear.Identity"}
    directory = build("Transformer", "Pooling", "Dense", Pooling={"pooling_mode": "cls"}, Dense=dense)
    place = directory / "2_Dense" / "model.safetensors"
    save_file({"linear.weight": torch.eye(2)}, place)
    assert embedder(directory)(STATES, MASK)[0].tolist() == [2, -2]
    save_file({"linear.weight": torch.ones(1, 2), "residual.weight": torch.tensor([[0.0, 5.0]])}, place)
    assert embedder(directory)(STATES, MASK)[0].tolist() == [-5]


def test_a_layer_norm(build: Callable[..., Path]) -> None:
    directory = build("Transformer", "Pooling", "LayerNorm", Pooling={"pooling_mode": "cls"})
    tensors = {"norm.weight": torch.tensor([2.0, 2.0]), "norm.bias": torch.tensor([1.0, 0.0])}
    save_file(tensors, directory / "3_LayerNorm" / "model.safetensors")
    assert embedder(directory)(STATES, MASK)[0].tolist() == pytest.approx([3, -2], abs=1e-4)


def test_a_plain_encoder_pools_as_it_is_told(tiny_model: Callable[..., Path]) -> None:
    assert embedder(tiny_model("encoder")).modes == ("mean",)
    assert embedder(tiny_model("encoder"), "cls").modes == ("cls",)
    assert reading(tiny_model("encoder")) == Reading()


def test_the_older_layout_has_its_modules_above(build: Callable[..., Path]) -> None:
    directory = build("Transformer", "Pooling", Pooling={"pooling_mode": "cls"})
    inner = directory / "0_Transformer"
    inner.mkdir()
    for name in ("config.json", "model.safetensors"):
        (directory / name).rename(inner / name)
    entries = json.loads((directory / "modules.json").read_text())
    entries[0]["path"] = "0_Transformer"
    (directory / "modules.json").write_text(json.dumps(entries))
    (inner / "sentence_bert_config.json").write_text('{"max_seq_length": 9, "do_lower_case": true}')
    assert embedder(inner).modes == ("cls",)
    assert reading(inner) == Reading("", True, 9)


@pytest.mark.parametrize(
    ("kinds", "settings", "line"),
    [
        (["Transformer"], {}, "has no Transformer with a Pooling (Transformer); write evaluation.examples=0"),
        (
            ["Transformer", "Pooling", "Pooling"],
            {},
            "has no Transformer with a Pooling (Transformer, Pooling, Pooling); ",
        ),
        (["BoW", "Pooling"], {}, "has no Transformer with a Pooling (BoW, Pooling); "),
        (["Transformer", "Normalize", "Pooling"], {}, "has a Normalize before its Pooling; "),
        (["Transformer", "Pooling", "LSTM"], {}, "its LSTM is not known here; "),
        (
            ["Transformer", "Pooling"],
            {"Pooling": {"pooling_mode": "best"}},
            "pools by 'best', which is not known here; ",
        ),
        (
            ["Transformer", "Pooling", "Dense"],
            {"Dense": {"module_input_name": "token_embeddings"}},
            "its Dense is not known here; ",
        ),
    ],
)
def test_modules_that_are_not_known_are_refused(
    build: Callable[..., Path], kinds: list[str], settings: dict[str, Any], line: str
) -> None:
    with pytest.raises(ModelError) as caught:
        embedder(build(*kinds, **settings))
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pooling_beside_modules_is_refused(build: Callable[..., Path]) -> None:
    with pytest.raises(ModelError, match=r"^data.pooling: .*modules.json says how its vectors are made; remove it$"):
        embedder(build("Transformer", "Pooling"), "mean")


def test_a_damaged_file_is_said(build: Callable[..., Path]) -> None:
    directory = build("Transformer", "Pooling")
    (directory / "1_Pooling" / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json: is no JSON"):
        embedder(directory)
