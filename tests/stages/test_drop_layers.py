"""Layers left out: what loads is the original without them, whatever stages follow."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from command_line import rows
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, BertConfig

import optimizer
from optimizer.errors import StageError


def without(model: Any, *gone: int) -> Any:
    """A BERT with those layers taken out of its list."""
    model = copy.deepcopy(model).eval()
    layers = model.bert.encoder.layer
    model.bert.encoder.layer = torch.nn.ModuleList(layer for at, layer in enumerate(layers) if at not in gone)
    model.config.num_hidden_layers = len(layers) - len(gone)
    return model


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(**tiny.INPUTS).logits
    return found


@pytest.mark.parametrize("format", ["dense", "packed"])
@pytest.mark.parametrize("gone", [[0], [1, 2], [3]])
def test_what_loads_is_the_model_without_them(tmp_path: Path, format: str, gone: list[int]) -> None:
    model = tiny.bert(num_hidden_layers=4)
    original = tiny.save(model, tmp_path / "model", shard_size="60KB")
    tiny.optimize(original, tmp_path / "out", {"drop_layers": {"layers": gone}}, format=format)
    loaded, info = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values()), info
    assert loaded.config.num_hidden_layers == 4 - len(gone)
    assert torch.equal(logits(loaded), logits(without(model, *gone)))


def test_stages_after_it_work_on_what_is_left(tmp_path: Path) -> None:
    original = tiny.save(tiny.bert(num_hidden_layers=3), tmp_path / "model")
    before = load_file(original / "model.safetensors")
    stages = {"drop_layers": {"layers": [1]}, "prune": {"amount": 0.5, "scope": "model"}, "quantize": {"step": 0.5}}
    after = tiny.values(tiny.staged(original, stages))
    assert not any(".layer.2." in name for name in after)
    query = "bert.encoder.layer.{}.attention.self.query.weight"
    kept = after[query.format(1)]
    assert 0.2 < (kept == 0).float().mean() < 0.9
    big = kept != 0
    assert torch.allclose(kept[big], before[query.format(2)][big], atol=0.3 * before[query.format(2)].std())


def test_before_it_too(tmp_path: Path) -> None:
    original = tiny.save(tiny.bert(num_hidden_layers=3), tmp_path / "model")
    codes = tiny.values(tiny.staged(original, {"quantize": {"bits": 8}}))
    both = tiny.values(tiny.staged(original, {"quantize": {"bits": 8}, "drop_layers": {"layers": [0]}}))
    name = "bert.encoder.layer.{}.output.dense.weight"
    assert torch.equal(both[name.format(0)], codes[name.format(1)])


def test_a_language_model_is_shortened_alike(tmp_path: Path) -> None:
    original = tiny.save(tiny.llama(num_hidden_layers=3), tmp_path / "model")
    tiny.optimize(original, tmp_path / "out", {"drop_layers": {"layers": [2]}}, format="dense")
    full, short = (AutoModelForCausalLM.from_pretrained(path) for path in (original, tmp_path / "out"))
    full.model.layers = full.model.layers[:2]
    full.config.num_hidden_layers = 2
    assert torch.equal(logits(short), logits(full))


def test_an_engine_runs_what_is_left(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    model = tiny.bert(num_hidden_layers=3)
    original = tiny.save(model, tmp_path / "model")
    stages = {"drop_layers": {"layers": [1]}}
    tiny.optimize(original, tmp_path / "out", stages, format="openvino", engine={"precision": "float32"})
    found = optimizer.load(tmp_path / "out")(**tiny.INPUTS).logits
    assert torch.allclose(found, logits(without(model, 1)), atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"layers": [0, 7]}, "stages.drop_layers: layers: 7 is none of its 2, 0 to 1; write another"),
        ({"layers": [0, 1]}, "stages.drop_layers: layers: are all that it has; leave one"),
        (
            {"layers": [0], "skip": ["*.layer.1.*"]},
            "stages.drop_layers: only, skip and roles keep 'bert.encoder.layer.1.attention.self.query.weight' back, "
            "but a layer goes whole; remove them",
        ),
    ],
)
def test_what_cannot_go_is_refused(tmp_path: Path, settings: dict[str, Any], line: str) -> None:
    original = tiny.save(tiny.bert(), tmp_path / "model")
    with pytest.raises(StageError) as caught:
        tiny.staged(original, {"drop_layers": settings})
    assert str(caught.value).partition("'")[0] == line.partition("'")[0]


@pytest.mark.parametrize("model", [tiny.resnet, tiny.t5])
def test_models_without_one_row_of_layers_are_refused(tmp_path: Path, model: Any) -> None:
    original = tiny.save(model(), tmp_path / "model")
    with pytest.raises(StageError, match=r"^stages\.drop_layers: it knows no row of layers of a '\w+' model; remove"):
        tiny.staged(original, {"drop_layers": {"layers": [0]}})


def test_layers_that_differ_are_refused(tmp_path: Path) -> None:
    from transformers import ModernBertConfig, ModernBertForSequenceClassification

    torch.manual_seed(0)
    config = ModernBertConfig(
        vocab_size=tiny.VOCABULARY, hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2,
    )  # fmt: skip
    original = tiny.save(ModernBertForSequenceClassification(config), tmp_path / "model")
    with pytest.raises(StageError, match=r"^stages\.drop_layers: the layers of this model differ"):
        tiny.staged(original, {"drop_layers": {"layers": [1]}})
    with pytest.raises(StageError, match=r"^stages\.drop_layers: the layers of this model differ"):
        tiny.staged(tiny.save(tiny.swin(), tmp_path / "swin"), {"drop_layers": {"layers": [1]}})


def test_a_sweep_over_which_layers_go(optimizer: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    place = "+stages.drop_layers={before: cast}"
    code, _, said = optimizer("-m", "recipe=fp16", place, "stages.drop_layers.layers=[],[0],[1,2]", "evaluation=none")
    assert code == 0, said
    assert "alone" not in said, "what stays is meant to"
    sizes = sorted(int(row["artifact_bytes"]) for row in rows(tmp_path / "outputs"))
    assert len(set(sizes)) == 3
    code, _, said = optimizer("recipe=pruned", "+stages.drop_layers={before: prune, layers: [0]}", "evaluation=none")
    assert code == 0, said


def test_no_layer_is_no_change(tmp_path: Path) -> None:
    original = tiny.save(tiny.bert(), tmp_path / "model")
    before = load_file(original / "model.safetensors")
    after = tiny.values(tiny.staged(original, {"drop_layers": {}}))
    assert before.keys() == after.keys()
    assert BertConfig.from_pretrained(original).num_hidden_layers == 2
