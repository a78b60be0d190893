"""The payload of a weight: what is packed comes back bit for bit, and what is damaged does not come back."""

import struct
import zlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from payloads import assert_comes_back, assert_same, crafted

from optimizer.model.weight import Codes, Weight
from optimizer.packing import codec
from optimizer.packing.payload import DTYPES, PayloadError, is_payload, pack, restored_shape, stored_codes, unpack

HEAD = 18
INTEGERS = (torch.int8, torch.int16, torch.int32)
SCALES = ("one", "rows", "groups")
STACKED = {"outputs": (3, 4, 1), "transposed": (3, 1, 6), "groups": (3, 4, 2, 1), "transposed groups": (3, 2, 1, 6)}
"""Scales of three matrices of 4 x 6, whose inputs are along the last axis, or along the one before it."""


def integers(rows: int, columns: int, dtype: torch.dtype = torch.int8, zeros: float = 0.3, seed: int = 0) -> Codes:
    """Codes of one scale."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(-100, 101, (rows, columns), generator=generator).to(dtype)
    values[torch.rand(rows, columns, generator=generator) < zeros] = 0
    return Codes(values, torch.rand((), generator=generator) + 0.01, torch.float32)


def weight(codes: Codes) -> Weight:
    return Weight("layer.weight", codes, "linear", "layer")


@st.composite
def quantized(draw: st.DrawFn) -> Codes:
    """Codes with scales of every shape."""
    kind = draw(st.sampled_from(SCALES))
    groups = draw(st.integers(1, 4))
    rows = draw(st.integers(0, 7))
    columns = draw(st.integers(0, 5)) * (groups if kind == "groups" else 1)
    made = integers(rows, columns, draw(st.sampled_from(INTEGERS)), draw(st.sampled_from([0, 0.5, 1])), rows)
    shape = {"one": (), "rows": (rows, 1), "groups": (rows, groups, 1)}[kind]
    scale = torch.rand(shape, generator=torch.Generator().manual_seed(columns)) * 10 ** draw(st.integers(-30, 3))
    return Codes(made.values, scale, draw(st.sampled_from(DTYPES)))


@st.composite
def plain(draw: st.DrawFn) -> torch.Tensor:
    """Tensors of any shape and order in memory, with zeros, NaN and infinity."""
    shape = draw(st.lists(st.integers(0, 6), max_size=4))
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    flat = tensor.view(-1)
    for value in draw(st.lists(st.sampled_from([0.0, -0.0, float("nan"), float("inf"), float("-inf")]), max_size=4)):
        if flat.numel():
            flat[draw(st.integers(0, flat.numel() - 1))] = value
    tensor = tensor.to(draw(st.sampled_from([*DTYPES, torch.int8, torch.uint8])))
    return tensor.transpose(0, -1) if tensor.dim() > 1 and draw(st.booleans()) else tensor


# the identity


@settings(max_examples=150, deadline=None)
@given(plain())
def test_a_plain_weight_comes_back_bit_for_bit(tensor: torch.Tensor) -> None:
    payload = pack(Weight("a", tensor, "linear", "module"))
    assert is_payload(payload)
    assert payload.shape != tensor.shape
    assert restored_shape(payload) == tuple(tensor.shape)
    assert_same(unpack(payload, tensor.shape), tensor)
    assert_same(stored_codes(payload), tensor)


@settings(max_examples=150, deadline=None)
@given(quantized())
def test_codes_come_back_bit_for_bit(codes: Codes) -> None:
    assert_comes_back(codes)


@pytest.mark.parametrize("shape", STACKED.values(), ids=STACKED)
def test_codes_of_a_stack_of_matrices_come_back_bit_for_bit(shape: tuple[int, ...]) -> None:
    values = integers(3 * 4, 6).values.reshape(3, 4, 6)
    codes = Codes(values, torch.rand(shape, generator=torch.Generator().manual_seed(0)) + 0.1, torch.float16)
    payload = pack(weight(codes))
    assert restored_shape(payload) == (3, 4, 6)
    assert_same(unpack(payload, (3, 4, 6)), codes.restore())
    assert_same(stored_codes(payload), values)
    assert (codes.extremes().max(), codes.extremes().min()) == (codes.restore().max(), codes.restore().min())


def test_what_is_restored_is_the_product_in_float32_rounded_once() -> None:
    codes = Codes(torch.tensor([[3, -5]], dtype=torch.int8), torch.tensor([[0.1]]), torch.float16)
    expected = (torch.tensor([[3.0, -5.0]]) * torch.tensor(0.1)).half()
    assert torch.equal(unpack(pack(weight(codes))), expected)


@pytest.mark.parametrize("threads", [1, 3])
def test_large_codes_in_threads_are_the_same_bytes(threads: int) -> None:
    codes = integers(300, 5000, torch.int16)
    payload = pack(weight(codes), threads)
    assert torch.equal(payload, pack(weight(codes)))
    assert_same(unpack(payload, threads=threads), codes.restore())


def test_codes_cost_their_entropy_and_little_more() -> None:
    values = (torch.randn(512, 1024, generator=torch.Generator().manual_seed(0)) * 4).round().to(torch.int8)
    codes = Codes(values, torch.ones(512, 1), torch.float16)
    size = pack(weight(codes)).numel()
    assert size * 8 <= 1.03 * codec.order0_bits(codes.values) + 8 * (256 + HEAD)


def test_bytes_of_version_1() -> None:
    codes = Codes(torch.ones(2, 300, dtype=torch.int8), torch.tensor(0.5), torch.bfloat16)
    raw = bytes(pack(weight(codes)).tolist())
    values, scale = codec.encode(codes.values), codec.encode(codes.scale)
    head = b"OPTQ" + b"\x01" + b"\x02" + values.numel().to_bytes(8, "little")
    assert raw[:HEAD] == head + zlib.crc32(head).to_bytes(4, "little")
    assert raw[HEAD:] == bytes(values.tolist()) + bytes(scale.tolist())


def test_what_is_no_payload() -> None:
    for tensor in (
        torch.zeros(0, dtype=torch.uint8),
        torch.zeros(3, dtype=torch.uint8),
        torch.zeros(40, dtype=torch.uint8),
        torch.tensor(list(b"OPTC"), dtype=torch.int8),
        torch.tensor([list(b"OPTC")], dtype=torch.uint8),
        torch.zeros(40),
    ):
        assert not is_payload(tensor)
        with pytest.raises(PayloadError):
            unpack(tensor)


# damage


def with_head(payload: torch.Tensor, *, version: int = 1, dtype: int = 0, length: int | None = None) -> torch.Tensor:
    """The payload under another header whose sum is right."""
    own = struct.unpack_from("<Q", bytes(payload[6:14].tolist()))[0]
    head = struct.pack("<4sBBQ", b"OPTQ", version, dtype, own if length is None else length)
    head += zlib.crc32(head).to_bytes(4, "little")
    return torch.cat([torch.tensor(list(head), dtype=torch.uint8), payload[HEAD:]])


def joined(values: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """A payload of two that need not belong together."""
    start = torch.zeros(HEAD, dtype=torch.uint8)
    return with_head(torch.cat([start, values, scale]), length=values.numel())


def test_the_crafted_header_is_the_packers() -> None:
    payload = pack(weight(integers(4, 6)))
    assert torch.equal(with_head(payload), payload)
    codes = integers(4, 6)
    assert torch.equal(joined(codec.encode(codes.values), codec.encode(codes.scale)), payload)


@pytest.mark.parametrize("kind", ["plain", *SCALES])
def test_no_damaged_byte_goes_unseen(kind: str) -> None:
    codes = integers(4, 6)
    shape = {"rows": (4, 1), "groups": (4, 2, 1)}.get(kind, ())
    codes = Codes(codes.values, torch.rand(shape) + 0.1, torch.float16)
    payload = pack(Weight("a", codes.restore(), "linear", "module") if kind == "plain" else weight(codes))
    for place in range(payload.numel()):
        for flip in (1, 0x80):
            damaged = payload.clone()
            damaged[place] ^= flip
            with pytest.raises(PayloadError):
                unpack(damaged, (4, 6))


@pytest.mark.parametrize("quantized", [False, True])
def test_cut_or_longer_payloads_are_refused(quantized: bool) -> None:
    codes = integers(4, 6)
    payload = pack(weight(codes) if quantized else Weight("a", codes.restore(), "linear", "module"))
    for length in range(payload.numel()):
        for read in (unpack, stored_codes):
            with pytest.raises(PayloadError):
                read(payload[:length])
    for more in (0, 7):
        with pytest.raises(PayloadError):
            unpack(torch.cat([payload, torch.tensor([more], dtype=torch.uint8)]))


def test_another_version_is_refused_before_anything_else() -> None:
    payload = with_head(pack(weight(integers(4, 6))), version=2)
    payload[14:] = 0
    for read in (unpack, stored_codes, restored_shape):
        with pytest.raises(PayloadError, match=r"^payload has format version 2, this program reads 1$"):
            read(payload)


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(PayloadError, match="payload's header is damaged"):
        unpack(with_head(pack(weight(integers(4, 6))), dtype=len(DTYPES)))


@pytest.mark.parametrize("quantized", [False, True])
def test_another_shape_than_expected_is_refused(quantized: bool) -> None:
    codes = integers(4, 6)
    payload = pack(weight(codes) if quantized else Weight("a", codes.restore(), "linear", "module"))
    for shape in ((6, 4), (24,), (4, 6, 1), ()):
        with pytest.raises(PayloadError, match=r"payload holds shape \(4, 6\), not "):
            unpack(payload, shape)


@pytest.mark.parametrize("shape", [(1, 4), (4,), (6, 1), (4, 5, 1), (4, 2), (4, 2, 2), (4, 0, 1), (3, 2, 1), (4, 6)])
def test_scales_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    payload = joined(codec.encode(integers(4, 6).values), codec.encode(torch.rand(shape)))
    with pytest.raises(PayloadError, match=r"payload's scales of shape .* do not fit torch\.int8 of shape \(4, 6\)"):
        unpack(payload)


def test_codes_and_scales_of_another_kind_are_refused() -> None:
    values, scale = integers(4, 6).values, torch.rand(4, 1)
    with pytest.raises(PayloadError, match=r"payload holds torch\.float16, not torch\.float32"):
        unpack(joined(codec.encode(values), codec.encode(scale.half())))
    with pytest.raises(PayloadError, match=r"do not fit torch\.float32 of shape \(4, 6\)"):
        unpack(joined(codec.encode(values.float()), codec.encode(scale)))
    with pytest.raises(PayloadError):
        unpack(joined(codec.encode(scale), codec.encode(values)))
    with pytest.raises(PayloadError, match="not a payload of this codec"):
        unpack(joined(pack(weight(integers(4, 6))), codec.encode(scale)))


# hostile lengths


@pytest.mark.parametrize("length", [0, 1, 1 << 20, (1 << 63) - 1, (1 << 64) - 1])
def test_a_length_that_is_not_there_is_refused(length: int) -> None:
    payload = with_head(pack(weight(integers(4, 6))), length=length)
    for read in (unpack, stored_codes, restored_shape):
        if read is restored_shape and length < payload.numel() - HEAD:
            continue  # it reads no further than the shape
        with pytest.raises(PayloadError):
            read(payload)


def test_nothing_is_allocated_for_what_is_only_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    one, few = codec.encode(torch.ones(())), codec.encode(torch.ones(4, 6, dtype=torch.int8))
    many = crafted([1 << 15, 1 << 15], 0, b"", dtype=codec.DTYPES.index(torch.int8))
    scales = codec.encode(torch.ones(1024, 1024))

    def allocated(*_: object, **__: object) -> None:
        raise AssertionError("memory was allocated")

    monkeypatch.setattr(torch, "empty", allocated)
    with pytest.raises(PayloadError, match="claims 1073741824 bytes"):
        unpack(joined(many, one))
    with pytest.raises(
        PayloadError, match=r"payload's scales of shape \(1024, 1024\) do not fit torch\.int8 of shape \(4, 6\)"
    ):
        unpack(joined(few, scales))
    with pytest.raises(PayloadError, match=r"payload holds shape \(32768, 32768\), not \(4, 6\)"):
        unpack(joined(many, one), (4, 6))
