"""What cannot be unpacked is never loaded as something else: the error names the weight, or the version.

By the plug-in alone: without a manifest, which would refuse these artifacts before.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from artifacts import BITSANDBYTES, PLAIN, QUERY
from payloads import crafted
from safetensors.torch import load_file, save_file
from transformers.quantizers import auto

from optimizer.model.loading import load
from optimizer.model.weight import Codes, Weight
from optimizer.packing import codec
from optimizer.packing.marker import METHOD
from optimizer.packing.payload import PayloadError, pack


def spoil(directory: Path, name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    (directory / "manifest.json").unlink(missing_ok=True)
    path = directory / "model.safetensors"
    tensors = load_file(path)
    tensors[name] = change(tensors[name])
    save_file(tensors, path, {"format": "pt"})


def flipped(place: int) -> Callable[[torch.Tensor], torch.Tensor]:
    def flip(payload: torch.Tensor) -> torch.Tensor:
        payload[place] ^= 1
        return payload

    return flip


def matrix(rows: int, columns: int) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))


def coded(rows: int, columns: int) -> torch.Tensor:
    codes = Codes((matrix(rows, columns) * 9).to(torch.int8), torch.ones(()), torch.float16)
    return pack(Weight("other", codes, "linear", "other"))


DAMAGE: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], str]] = {
    "magic": (flipped(0), r"no payload, and of shape \(\d+,\), not \(64, 64\)"),
    "version": (flipped(4), "payload has format version 0, this program reads 1"),
    "header": (flipped(5), "payload's header is damaged"),
    "end": (flipped(-1), ""),
    "middle": (flipped(1000), ""),
    "cut": (lambda payload: payload[:-1].clone(), ""),
    "longer": (lambda payload: torch.cat([payload, payload[:1]]), ""),
    "empty": (lambda payload: payload[:0].clone(), r"no payload, and of shape \(0,\), not \(64, 64\)"),
    "of another shape": (lambda _: codec.encode(matrix(32, 64)), r"payload holds shape \(32, 64\), not \(64, 64\)"),
    "transposed": (lambda _: codec.encode(matrix(16, 256)), r"payload holds shape \(16, 256\), not \(64, 64\)"),
    "codes of another shape": (lambda _: coded(64, 32), r"payload holds shape \(64, 32\), not \(64, 64\)"),
    "larger": (lambda _: coded(64, 65), r"payload holds shape \(64, 65\) for a parameter of 4096 values"),
    "hostile": (lambda _: crafted([1 << 30, 1 << 30], 0, b""), "for a parameter of 4096 values"),
    "plain": (lambda _: matrix(64, 32), r"no payload, and of shape \(64, 32\), not \(64, 64\)"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_payload_names_its_weight(
    originals: Callable[[str], Path], both: Callable[..., tuple[Path, Path]], damage: str
) -> None:
    packed, _ = both(originals("bert"), {"quantize": {"bits": 8, "roles": ["linear"]}})
    change, said = DAMAGE[damage]
    spoil(packed, QUERY, change)
    with pytest.raises(PayloadError, match=f"^{QUERY}: cannot be unpacked: .*{said}"):
        load(packed)


@pytest.mark.parametrize("recipe", BITSANDBYTES)
def test_a_damaged_payload_of_bitsandbytes_names_its_weight(
    originals: Callable[[str], Path], both: Callable[..., tuple[Path, Path]], recipe: str
) -> None:
    """Its parameters take tensors of any shape, so that nothing after the plug-in would see this."""
    packed, _ = both(originals("bert"), BITSANDBYTES[recipe])
    sound = (packed / "model.safetensors").read_bytes()
    small = codec.encode(torch.zeros((32, 64) if recipe == "int8" else (1024, 1), dtype=torch.int8))
    for change in (flipped(0), flipped(-1), lambda _: small, lambda payload: payload[:100].clone()):
        spoil(packed, QUERY, change)
        with pytest.raises(PayloadError, match=f"^{QUERY}: cannot be unpacked: "):
            load(packed)
        (packed / "model.safetensors").write_bytes(sound)
    load(packed)


def test_a_damaged_payload_that_is_merged_names_what_it_becomes(
    originals: Callable[[str], Path], both: Callable[..., tuple[Path, Path]]
) -> None:
    packed, _ = both(originals("mixtral"), PLAIN["half"])
    spoil(packed, "model.layers.1.block_sparse_moe.experts.2.w3.weight", flipped(-1))
    with pytest.raises(PayloadError, match=r"^model\.layers\.1\.mlp\.experts\.gate_up_proj: cannot be unpacked: "):
        load(packed)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_an_unknown_version_is_refused(
    originals: Callable[[str], Path], both: Callable[..., tuple[Path, Path]], version: Any
) -> None:
    packed, _ = both(originals("bert"), PLAIN["half"])
    config = json.loads((packed / "config.json").read_text())
    assert config["quantization_config"] == {"quant_method": METHOD, "format_version": 1}
    (packed / "manifest.json").unlink()
    tiny.change_config(packed, quantization_config={"quant_method": METHOD, "format_version": version})
    with pytest.raises(ValueError, match=rf"packed format version {version} is not 1; load it with the release"):
        load(packed)


def test_without_the_plugin_loading_fails(
    originals: Callable[[str], Path], both: Callable[..., tuple[Path, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for stages in (PLAIN["half"], BITSANDBYTES["int8"]):
        packed, _ = both(originals("bert"), stages)
        with monkeypatch.context() as unplugged:
            unplugged.delitem(auto.AUTO_QUANTIZATION_CONFIG_MAPPING, METHOD)
            for options in ({}, {"ignore_mismatched_sizes": True}):
                with pytest.raises(ValueError, match='"packed; write import optimizer first"` is not supported'):
                    load(packed, **options)
