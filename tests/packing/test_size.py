"""What packed tensors cost: at most 3 % above their order-0 entropy, wherever the fixed bytes let them."""

import math

import numpy as np
import pytest
import torch
from payloads import DRAWS, sparse

from optimizer.packing.codec import encode, order0_bits

KIB = 1 << 10
MIB = 1 << 20
ZEROS = (0.0, 0.3, 0.5, 0.7, 0.9, 0.95)
FLOATS = (torch.float16, torch.bfloat16, torch.float32)


def over(tensor: torch.Tensor) -> float:
    """The share of its entropy that a packed tensor costs more."""
    return encode(tensor).numel() * 8 / order0_bits(tensor) - 1


@pytest.mark.parametrize("zeros", ZEROS)
@pytest.mark.parametrize("draw", DRAWS)
def test_bytes_are_within_three_percent(draw: str, zeros: float) -> None:
    for size in (64 * KIB, 256 * KIB, 257 * KIB, MIB):
        assert over(sparse(draw, torch.int8, size, zeros)) <= 0.03, size


@pytest.mark.parametrize("zeros", ZEROS)
@pytest.mark.parametrize("draw", ["normal", "laplace"])
def test_floats_are_within_three_percent(draw: str, zeros: float) -> None:
    for dtype in FLOATS:
        # At 95 % each plane of fp32 mantissas has 819 random bytes, which nothing makes fewer. In so few not all 256
        # occur equally often, and their entropy is 3 % less.
        sizes = (64 * KIB, 256 * KIB, MIB) if dtype.itemsize == 2 or zeros <= 0.9 else (128 * KIB, 256 * KIB, MIB)
        for size in sizes:
            assert over(sparse(draw, dtype, size, zeros)) <= 0.03, (dtype, size)


@pytest.mark.parametrize("zeros", ZEROS)
@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.int64], ids=str)
def test_codes_in_wider_integers_are_within_three_percent(dtype: torch.dtype, draw: str, zeros: float) -> None:
    # Some 30 bytes are fixed, and a histogram takes a dozen or two: more than 3 % of fewer elements.
    for elements in (16 * KIB if zeros <= 0.7 else 32 * KIB, 256 * KIB):
        size = max(64 * KIB, elements * dtype.itemsize)
        assert over(sparse(draw, dtype, size, zeros)) <= 0.03, size


def test_what_is_fixed_is_little() -> None:
    for dtype in (torch.int32, torch.int64):
        for draw in DRAWS:
            tensor = sparse(draw, dtype, 64 * KIB, 0.95)
            assert encode(tensor).numel() * 8 <= order0_bits(tensor) + 8 * 64


@pytest.mark.parametrize("ones", [0.02, 0.053, 0.15, 0.5])
def test_bits_below_one_are_within_three_percent(ones: float) -> None:
    for count in (256 * KIB, 2 * MIB + 1):
        assert over(torch.from_numpy((np.random.default_rng(2).random(count) < ones).astype(np.uint8))) <= 0.03


@pytest.mark.parametrize("values", [100, 120, 128, 140, 160, 200, 240])
def test_evenly_spread_codes_are_within_three_percent(values: int) -> None:
    random = np.random.default_rng(6)
    assert over(torch.from_numpy(random.integers(0, values, MIB).astype(np.uint8))) <= 0.03
    assert over(torch.from_numpy(random.integers(0, 4 * values, MIB // 2).astype(np.int16))) <= 0.03


@pytest.mark.parametrize("step", [0.3, 1.0, 3.0, 100.0, 500.0])
@pytest.mark.parametrize("tails", ["normal", "laplace", "student"])
def test_integer_codes_of_any_width_are_within_three_percent(step: float, tails: str) -> None:
    random = np.random.default_rng(3)
    draw = {
        "normal": random.standard_normal,
        "laplace": lambda n: random.laplace(size=n),
        "student": lambda n: random.standard_t(4, n),
    }
    codes = np.round(draw[tails](MIB // 4) * step).clip(-3500, 3500).astype(np.int32)
    assert over(torch.from_numpy(codes)) <= 0.03
    codes[random.random(codes.size) < 0.9] = 0
    assert over(torch.from_numpy(codes)) <= 0.03


def test_lumps_and_gaps_are_within_three_percent() -> None:
    random = np.random.default_rng(7)
    shares = random.random(255) ** 4
    lumps = random.choice(np.arange(-127, 128), 64 * KIB, p=shares / shares.sum())
    gaps = 2 * np.round(random.standard_normal(64 * KIB) * 16).clip(-63, 63)
    for codes, zeros in ((lumps, 0.9), (gaps, 0.95)):
        codes[random.random(codes.size) < zeros] = 0
        assert over(torch.from_numpy(codes.astype(np.int8))) <= 0.03


def test_noise_costs_its_raw_size() -> None:
    random = np.random.default_rng(4)
    for size in (1, 64, 8 * KIB, MIB // 8):
        noise = torch.from_numpy(random.integers(0, 256, 8 * size, dtype=np.uint8))
        for dtype in (torch.uint8, torch.float16, torch.int64):
            assert encode(noise.view(dtype)).numel() <= noise.numel() + 64


def test_what_repeats_costs_less_than_its_entropy() -> None:
    tensor = torch.arange(512).repeat(64)
    assert encode(tensor).numel() * 8 < order0_bits(tensor) / 4


def test_entropy_does_not_count_the_histogram() -> None:
    """Why the codes of few elements cannot all be near their entropy: nothing tells 4,096 different ones for less."""
    codes = torch.from_numpy(np.random.default_rng(8).permutation(2**15)[:4096].astype(np.int16))
    possible = math.lgamma(2**15 + 1) - math.lgamma(2**15 - 4096 + 1)
    assert possible / math.log(2) > 1.1 * order0_bits(codes)
    assert encode(codes).numel() * 8 < 1.1 * possible / math.log(2)
