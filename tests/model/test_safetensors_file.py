"""The safetensors writer: read back by the reference reader, byte for byte, and the same bytes every time."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from optimizer.model.safetensors_file import DTYPES, tensor_bytes, write

SHAPES = [(), (0,), (0, 3), (1,), (7,), (3, 5)]


def any_bits(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Every bit pattern is a value: NaNs, infinities and negative zeros included."""
    size = torch.Size(shape).numel() * dtype.itemsize
    limit = 2 if dtype == torch.bool else 256
    raw = torch.randint(0, limit, (size,), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return raw.view(dtype).reshape(shape)


def bits(tensor: torch.Tensor) -> list[int]:
    return tensor.contiguous().reshape(-1).view(torch.uint8).tolist()


def header(path: Path) -> tuple[int, dict[str, dict[str, list[int]]]]:
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return length, json.loads(content[8 : 8 + length])


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_read_back_by_the_reference_reader(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {f"{number}": any_bits(shape, dtype) for number, shape in enumerate(SHAPES)}
    path = tmp_path / "a.safetensors"
    sizes = write(path, tensors.items())
    with safe_open(path, framework="pt") as file:
        assert set(file.keys()) == set(tensors)
        assert file.metadata() == {"format": "pt"}
        for name, tensor in tensors.items():
            found = file.get_tensor(name)
            assert (found.dtype, found.shape) == (dtype, tensor.shape)
            assert bits(found) == bits(tensor)
            assert sizes[name] == tensor.numel() * dtype.itemsize
    assert [item.name for item in tmp_path.iterdir()] == ["a.safetensors"]


def test_all_dtypes_in_one_file_are_aligned(tmp_path: Path) -> None:
    tensors = {f"{dtype}.{size}": any_bits((size,), dtype) for dtype in DTYPES.values() for size in (1, 3, 0)}
    path = tmp_path / "a.safetensors"
    write(path, tensors.items())
    length, entries = header(path)
    assert (8 + length) % 8 == 0
    end = 0
    for name, entry in entries.items():
        if name != "__metadata__":
            start, stop = entry["data_offsets"]
            assert start == end
            assert (8 + length + start) % tensors[name].dtype.itemsize == 0, name
            end = stop
    assert path.stat().st_size == 8 + length + end
    with safe_open(path, framework="pt") as file:
        assert all(bits(file.get_tensor(name)) == bits(tensor) for name, tensor in tensors.items())


def test_the_order_of_writing_does_not_show(tmp_path: Path) -> None:
    tensors = [(f"{number}", any_bits((number,), dtype)) for number, dtype in enumerate(DTYPES.values())]
    write(tmp_path / "a", tensors)
    write(tmp_path / "b", reversed(tensors))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("name", ["", "a b", 'quo"te', "line\nbreak", "ünïcödé.weight", "a" * 5000])
def test_any_name(tmp_path: Path, name: str) -> None:
    write(tmp_path / "a", [(name, torch.ones(2))])
    with safe_open(tmp_path / "a", framework="pt") as file:
        assert list(file.keys()) == [name]


def test_no_tensors(tmp_path: Path) -> None:
    assert write(tmp_path / "a", []) == {}
    with safe_open(tmp_path / "a", framework="pt") as file:
        assert list(file.keys()) == []


def test_a_tensor_larger_than_the_buffer_it_is_copied_through(tmp_path: Path) -> None:
    tensor = any_bits((1_300_001,), torch.uint8)
    write(tmp_path / "a", [("small", torch.ones(3)), ("large", tensor)])
    with safe_open(tmp_path / "a", framework="pt") as file:
        assert torch.equal(file.get_tensor("large"), tensor)
        assert torch.equal(file.get_tensor("small"), torch.ones(3))


def test_views_and_parameters(tmp_path: Path) -> None:
    matrix = torch.arange(12.0).reshape(3, 4)
    views = {"t": matrix.T, "step": matrix[:, ::2], "expanded": torch.ones(1).expand(4)}
    write(tmp_path / "a", [*views.items(), ("parameter", torch.nn.Parameter(matrix))])
    with safe_open(tmp_path / "a", framework="pt") as file:
        for name, view in views.items():
            assert torch.equal(file.get_tensor(name), view)
        assert torch.equal(file.get_tensor("parameter"), matrix)


def test_a_contiguous_tensor_is_not_copied() -> None:
    tensor = torch.arange(4, dtype=torch.uint8)
    raw = tensor_bytes(tensor)
    tensor[0] = 9
    assert raw[0] == 9


def test_nothing_is_left_when_the_stream_breaks(tmp_path: Path) -> None:
    def stream() -> Iterator[tuple[str, torch.Tensor]]:
        yield "a", torch.ones(100)
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        write(tmp_path / "a", stream())
    assert list(tmp_path.iterdir()) == []
