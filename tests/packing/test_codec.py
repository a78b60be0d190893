"""The lossless codec: exact, near the entropy, the same for any number of threads."""

import math

import numpy as np
import payloads
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from payloads import assert_same

from optimizer.packing.codec import BLOCK, DTYPES, MAX_EXPANSION, PayloadError, decode, encode, header, order0_bits

MIB = 1 << 20


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 9), max_size=4))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    count = math.prod(shape)
    if draw(st.booleans()) and dtype.itemsize > 1:
        values = (random.standard_normal(count) * draw(st.sampled_from([0.5, 30, 3000]))).round()
        tensor = torch.from_numpy(values).abs().clamp(max=2**15).to(dtype)
    else:
        patterns = random.integers(0, 256, count * dtype.itemsize, dtype=np.uint8)
        tensor = torch.empty(count, dtype=dtype)
        tensor.view(torch.uint8)[:] = torch.from_numpy(patterns & 1 if dtype == torch.bool else patterns)
    zeros = torch.from_numpy(random.random(count) < draw(st.sampled_from([0, 0.5, 0.9, 1])))
    tensor.view(torch.uint8).reshape(-1, dtype.itemsize)[zeros] = 0
    tensor = tensor.reshape(shape)
    if tensor.dim() > 1 and draw(st.booleans()):
        tensor = tensor.transpose(0, -1)
    if tensor.dim() and draw(st.booleans()):
        tensor = tensor[::2]
    return tensor


@settings(max_examples=300, deadline=None)
@given(tensors())
def test_restores_every_bit_of_any_tensor(tensor: torch.Tensor) -> None:
    payload = encode(tensor)
    assert payload.dtype == torch.uint8
    assert payload.dim() == 1
    assert payload.shape != tensor.shape
    assert payload.numel() <= tensor.numel() * tensor.element_size() + 64
    restored = decode(payload, expect_shape=tensor.shape, expect_dtype=tensor.dtype)
    assert_same(restored, tensor)
    assert restored.is_contiguous()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_restores_every_pattern_of_a_half_float(dtype: torch.dtype) -> None:
    tensor = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype)
    assert tensor.isnan().any()
    assert tensor.isinf().any()
    assert_same(decode(encode(tensor)), tensor)


def test_restores_special_floats() -> None:
    patterns = torch.tensor([0x7FC00001, 0x7F800001, 0x7F800000, -0x800000, -0x80000000, 0, 1], dtype=torch.int32)
    for tensor in (patterns.view(torch.float32), patterns.view(torch.float32).expand(200, 7)):
        assert_same(decode(encode(tensor)), tensor)


def test_restores_extreme_integers() -> None:
    for dtype in (torch.int16, torch.int32, torch.int64):
        info = torch.iinfo(dtype)
        for ends in ([info.min, info.max, 0, -1], [info.min, info.min + 1], [info.max - 300, info.max]):
            tensor = torch.tensor(ends, dtype=dtype).repeat(300)
            assert_same(decode(encode(tensor)), tensor)


@pytest.mark.parametrize("node", payloads.of_every_node())
def test_restores_through_every_node(node: str) -> None:
    tensor, place, tags = payloads.of_every_node()[node]
    payload = encode(tensor)
    block_start = header(payload).size + 4
    assert payload[block_start + place :][: len(tags)].tolist() == tags
    assert_same(decode(payload), tensor)


def test_entropy_of_known_tensors() -> None:
    assert order0_bits(torch.tensor([0, 0, 5, 5])) == 4
    assert order0_bits(torch.tensor([7, 7, 7])) == 0
    assert order0_bits(torch.empty(0)) == 0
    # A mask of one bit an element, and 8 patterns that differ in one byte among the others.
    patterns = torch.cat([torch.zeros(8), torch.arange(1, 9)]).to(torch.int32)
    assert order0_bits((patterns * 2).view(torch.float32)) == 16 + 8 * 3


def test_constant_tensors_cost_next_to_nothing_and_one_byte_a_mebibyte() -> None:
    for tensor in (torch.zeros(5, 7), torch.ones(MIB, dtype=torch.int64), torch.full((3, MIB), torch.nan)):
        payload = encode(tensor)
        assert header(payload).scheme == "constant"
        assert payload.numel() < 48
        assert_same(decode(payload), tensor)
    # A view of one element: nothing of this size is allocated here.
    huge = torch.zeros(1, dtype=torch.uint8).expand(64 * MIB)
    payload = encode(huge)
    assert payload.numel() == huge.numel() // MAX_EXPANSION
    assert int(decode(payload).max()) == 0


def test_a_payload_never_has_the_shape_of_its_tensor() -> None:
    lengths = {}
    for count in range(1, 60):
        tensor = torch.full((count,), 3, dtype=torch.uint8)
        payload = encode(tensor)
        lengths[count] = payload.numel()
        assert payload.shape != tensor.shape
        assert_same(decode(payload), tensor)
    # The constant's usual length, and the one count that needed a byte more.
    assert sorted(set(lengths.values())) == [min(lengths.values()), min(lengths.values()) + 1]


@pytest.mark.parametrize("dtype", [torch.int8, torch.bfloat16], ids=str)
def test_bytes_do_not_depend_on_the_threads(dtype: torch.dtype) -> None:
    tensor = payloads.sparse("normal", dtype, 3 * BLOCK * dtype.itemsize - 640, 0.5)
    payload = encode(tensor, threads=1)
    assert torch.equal(payload, encode(tensor, threads=3))
    assert_same(decode(payload, threads=3), tensor)


def test_bytes_of_version_1() -> None:
    constant = encode(torch.full((2, 300), 1.0, dtype=torch.float16))
    assert bytes(constant.tolist()).hex() == "4f505443" + "b261d5f1" + "01010002" + "02ac02" + "00" + "003c"
    empty = encode(torch.empty(0, 3, dtype=torch.bool))
    assert bytes(empty.tolist()).hex() == "4f505443" + "2424ce1c" + "01040102" + "0003" + "00"


def test_header_is_read_from_the_first_bytes() -> None:
    tensor = payloads.sparse("normal", torch.float16, MIB, 0.3)
    head = header(encode(tensor)[:100])
    assert (head.dtype, head.shape, head.scheme, head.raw_bytes) == (torch.float16, tensor.shape, "blocks", MIB)


def test_dtypes_without_a_plan_are_refused() -> None:
    with pytest.raises(TypeError, match=r"cannot pack a tensor of torch\.complex64"):
        encode(torch.zeros(2, dtype=torch.complex64))


def test_a_payload_of_another_tensor_is_refused() -> None:
    payload = encode(torch.zeros(2, 3))
    with pytest.raises(PayloadError, match=r"payload holds shape \(2, 3\), not \(3, 2\)"):
        decode(payload, expect_shape=(3, 2))
    with pytest.raises(PayloadError, match=r"payload holds torch.float32, not torch.float16"):
        decode(payload, expect_dtype=torch.float16)
