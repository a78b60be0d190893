"""A graph in one file comes back byte for byte, and no damaged one is taken for a graph."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("openvino", reason="needs the extra openvino")
pytest.importorskip("nncf", reason="needs the extra openvino")

from optimizer.engines.engine_codes import coded_readers, hand_codes_to_engine, origins
from optimizer.engines.openvino import CONSTANTS, GRAPH, convert, quantize, save
from optimizer.engines.openvino_runnable import OpenVINORunnable
from optimizer.engines.packages import core
from optimizer.engines.packed_graph import pack_graph, read_packed, unpack_graph
from optimizer.model.weight import Codes
from optimizer.packing.reader import PayloadError
from optimizer.stages.quantize import quantize as to_codes
from tests.engines.models import calibration, example_inputs, model_of

WIDE = {"hidden_size": 64, "intermediate_size": 128}  # so that matrices have payloads of their own


def _coded(step: float, tmp_path: Path, tiny_model: Callable[..., Path]) -> tuple[Any, list[Codes]]:
    """A classifier whose matrices are codes times a step of so many standard deviations, and the codes."""
    model = model_of(tiny_model("sequence-classification", tmp_path / "model", **WIDE))
    codes = []
    for parameter in model.parameters():
        if parameter.ndim == 2:
            one = to_codes(parameter.data, parameter.data.std() * step, 0.0, torch.float32)
            parameter.data.copy_(one.restore())
            codes.append(one)
    return model, codes


def _files(graph: Any, directory: Path) -> tuple[bytes, bytes]:
    save(graph, directory)
    return (directory / GRAPH).read_bytes(), (directory / CONSTANTS).read_bytes()


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8", "int8_weights", "int4_weights"])
def test_comes_back_exactly(precision: Any, tmp_path: Path, tiny_model: Callable[..., Path]) -> None:
    model = model_of(tiny_model("sequence-classification"))
    xml, constants = _files(quantize(convert(model, example_inputs()), precision, calibration()), tmp_path)

    packed = pack_graph(xml, constants)

    restored_xml, restored = unpack_graph(packed)
    assert restored_xml == xml
    assert restored.tobytes() == constants


@pytest.mark.parametrize("precision", ["float32", "int8", "int8_weights"])
def test_codes_take_the_place_of_what_follows_from_them(
    precision: Any, tmp_path: Path, tiny_model: Callable[..., Path]
) -> None:
    model, codes = _coded(0.5, tmp_path, tiny_model)
    graph = convert(model, example_inputs())
    readers = coded_readers(graph, codes)
    graph = quantize(graph, precision, calibration())
    found = origins(graph, readers)
    xml, constants = _files(graph, tmp_path)

    packed = pack_graph(xml, constants, found, threads=2)

    restored_xml, restored = unpack_graph(packed, threads=2)
    assert (restored_xml, restored.tobytes()) == (xml, constants)
    assert len(packed) < 0.85 * len(pack_graph(xml, constants))


def test_codes_become_the_engine_s_weights_as_they_are(tmp_path: Path, tiny_model: Callable[..., Path]) -> None:
    model, codes = _coded(0.25, tmp_path, tiny_model)
    graph = convert(model, example_inputs())
    readers = coded_readers(graph, codes)
    graph = quantize(graph, "int8_weights")

    replaced = hand_codes_to_engine(graph, readers)

    assert replaced == len(readers) > 10
    exactly = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": 0, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core().compile_model(graph, "CPU", exactly)
    answer = torch.from_numpy(compiled({name: value.numpy() for name, value in example_inputs().items()})[0])
    with torch.no_grad():
        torch.testing.assert_close(answer, model(**example_inputs()).logits, atol=1e-4, rtol=1e-4)


def test_codes_that_int8_cannot_hold_stay_as_nncf_rounded_them(tmp_path: Path, tiny_model: Callable[..., Path]) -> None:
    model, codes = _coded(0.01, tmp_path, tiny_model)
    graph = convert(model, example_inputs())
    readers = coded_readers(graph, codes)

    assert hand_codes_to_engine(quantize(graph, "int8_weights"), readers) == 0


def test_packed_graph_is_read_without_files(tmp_path: Path, tiny_model: Callable[..., Path]) -> None:
    model = model_of(tiny_model("sequence-classification"))
    graph = quantize(convert(model, example_inputs()), "int8", calibration())
    packed = pack_graph(*_files(graph, tmp_path))

    answers = [
        OpenVINORunnable(one, model.config, threads=1)(**example_inputs()).logits
        for one in (graph, read_packed(packed))
    ]

    assert torch.equal(*answers)


def test_damage_is_found(tmp_path: Path, tiny_model: Callable[..., Path]) -> None:
    graph = convert(model_of(tiny_model("sequence-classification")), example_inputs())
    packed = pack_graph(*_files(graph, tmp_path))
    draw = np.random.default_rng(0)
    for place in draw.integers(9, len(packed), 20):
        damaged = bytearray(packed)
        damaged[place] ^= 1
        with pytest.raises(PayloadError, match="damaged"):
            unpack_graph(bytes(damaged))
    for end in (0, 3, 8, 9, len(packed) // 2, len(packed) - 1):
        with pytest.raises(PayloadError):
            unpack_graph(packed[:end])


def test_another_version_is_refused() -> None:
    with pytest.raises(PayloadError, match="format version 9, this program reads 1"):
        unpack_graph(b"OPTG\x09" + struct.pack("<I", 0))
