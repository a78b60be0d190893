"""Pruning: the exact number of zeros, in the exact places."""

import math
from collections.abc import Iterable

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.errors import StageError
from optimizer.model.weight import Weight
from optimizer.stages.prune import Prune, prune, prune_pattern

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


def random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def bits(tensor: torch.Tensor) -> list[int]:
    return tensor.contiguous().flatten().view(torch.uint8).tolist()


def through(stage: Prune, *tensors: torch.Tensor, input_axis: int = -1) -> list[torch.Tensor]:
    """What the stage makes of a model with these weights."""
    weights = [Weight(str(number), tensor, "linear", "", input_axis) for number, tensor in enumerate(tensors)]
    outline = tiny.outline(*tensors, input_axis=input_axis)
    assert stage.outline(outline, outline.places) == outline
    transform = stage.prepare(lambda: weights, tiny.CONTEXT)
    after: list[Weight] = [one for weight in weights for one in transform(weight)]
    assert [(weight.name, weight.role) for weight in after] == [(weight.name, weight.role) for weight in weights]
    return [weight.tensor for weight in after]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("amount", [0, 0.3, 0.5, 0.99])
@pytest.mark.parametrize("shape", [(1,), (7,), (7, 13), (3, 5, 11), (64, 64)])
def test_exactly_the_share_is_zero(shape: tuple[int, ...], amount: float, dtype: torch.dtype) -> None:
    tensor = random(*shape, dtype=dtype)
    assert (tensor != 0).all()
    pruned = prune(tensor, amount)
    kept = pruned != 0
    assert int((~kept).sum()) == round(amount * tensor.numel())
    assert (pruned.shape, pruned.dtype) == (tensor.shape, dtype)
    assert torch.equal(pruned[kept], tensor[kept])
    if kept.any() and not kept.all():
        assert tensor[~kept].abs().max() <= tensor[kept].abs().min()


def test_the_smallest_magnitudes_go_whatever_their_sign() -> None:
    pruned = prune(torch.tensor([-3.0, 0.5, -0.25, 2.0, 1.0]), 0.4)
    assert pruned.tolist() == [-3.0, 0.0, 0.0, 2.0, 1.0]


def test_of_equal_magnitudes_the_first_in_memory_go() -> None:
    tensor = torch.tensor([[1.0, -1.0, 2.0], [1.0, -1.0, 1.0]])
    assert prune(tensor, 0.5).tolist() == [[0.0, 0.0, 2.0], [0.0, -1.0, 1.0]]
    assert prune(tensor.T, 0.5).tolist() == [[0.0, 0.0], [0.0, -1.0], [2.0, 1.0]]


def test_zeros_that_are_there_already_count() -> None:
    tensor = torch.tensor([5.0, 0.0, 1.0, 0.0, 2.0])
    assert prune(tensor, 0.4).tolist() == tensor.tolist()
    assert prune(tensor, 0.2).tolist() == tensor.tolist()
    assert prune(tensor, 0.6).tolist() == [5.0, 0.0, 0.0, 0.0, 2.0]


@pytest.mark.parametrize("amount", [0, 0.3, 0.5, 0.99])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_second_time_changes_nothing(amount: float, dtype: torch.dtype) -> None:
    tensor = random(9, 11, dtype=dtype)
    tensor[2] = -0.0
    tensor[3] = math.nan
    once = prune(tensor, amount)
    assert bits(prune(once, amount)) == bits(once)


@pytest.mark.parametrize("amount", [0, 0.5, 0.99])
def test_all_zeros_stay(amount: float) -> None:
    assert prune(torch.zeros(5, 3), amount).count_nonzero() == 0


@pytest.mark.parametrize("amount", [0, 0.5, 0.99])
@pytest.mark.parametrize("shape", [(0,), (0, 4), (4, 0)])
def test_an_empty_tensor_stays(shape: tuple[int, ...], amount: float) -> None:
    assert prune(torch.empty(*shape), amount).shape == shape


def test_a_single_value() -> None:
    assert prune(torch.tensor(2.0), 0.4).item() == 2.0
    assert prune(torch.tensor(2.0), 0.99).item() == 0.0
    assert prune(torch.tensor(2.0), 0.99).shape == ()


def test_nan_and_infinity_are_the_last_to_go() -> None:
    tensor = torch.tensor([math.nan, 1.0, -math.inf, -math.nan, 3.0, math.inf])
    pruned = prune(tensor, 2 / 6)
    assert pruned.nan_to_num(nan=7.0, posinf=9.0, neginf=-9.0).tolist() == [7.0, 0.0, -9.0, 7.0, 0.0, 9.0]
    pruned = prune(tensor, 4 / 6)
    assert pruned.isnan().tolist() == tensor.isnan().tolist()
    assert int((pruned == 0).sum()) == 4


def test_subnormal_values_are_told_apart() -> None:
    tensor = torch.tensor([3e-45, 1e-45, 4e-45])
    assert prune(tensor, 1 / 3).tolist() == [tensor[0].item(), 0.0, tensor[2].item()]


def test_what_is_pruned_becomes_positive_zero() -> None:
    assert bits(prune(torch.tensor([-0.0, -1e-9, 1.0]), 0.67)) == bits(torch.tensor([0.0, 0.0, 1.0]))


def test_a_view_is_pruned_like_its_copy() -> None:
    tensor = random(12, 10)
    for view in (tensor.T, tensor[::2], tensor[:, 3:7]):
        assert not view.is_contiguous()
        assert torch.equal(prune(view, 0.5), prune(view.contiguous(), 0.5))


@pytest.mark.parametrize(
    "stage", [Prune(amount=0.0), Prune(amount=0.5), Prune(amount=0.5, scope="model"), Prune(pattern="2:4")]
)
def test_the_original_tensor_is_left_alone(stage: Prune) -> None:
    tensor = random(8, 8)
    before = tensor.clone()
    (pruned,) = through(stage, tensor)
    pruned.fill_(7)
    assert torch.equal(tensor, before)


def test_each_tensor_gets_its_share() -> None:
    small, large = random(10, 10) / 100, random(10, 10)
    after = through(Prune(amount=0.3), small, large)
    assert [int((tensor == 0).sum()) for tensor in after] == [30, 30]


def test_over_the_model_the_small_tensors_lose_more() -> None:
    small, large = random(10, 10) / 1e6, random(10, 10)
    after = through(Prune(amount=0.3, scope="model"), large, small)
    assert [int((tensor == 0).sum()) for tensor in after] == [0, 60]


def brute_force(tensors: list[torch.Tensor], amount: float) -> list[torch.Tensor]:
    """Sort the magnitudes of all tensors, equal ones in the order of the stream, and zero the first."""
    flat = torch.cat([tensor.float().flatten() for tensor in tensors])
    magnitudes = flat.abs().where(~flat.isnan(), torch.tensor(math.inf))
    keys = list(zip(magnitudes.tolist(), flat.isnan().tolist(), range(len(flat)), strict=True))
    for _, _, index in sorted(keys)[: round(amount * len(flat))]:
        flat[index] = 0
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    return [part.reshape(tensor.shape).to(tensor.dtype) for part, tensor in zip(parts, tensors, strict=True)]


few_values = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1.0009765625, 1.5, 1e-7, -2e-7, 60000.0, math.inf, math.nan])
any_values = st.floats(width=16, allow_nan=False)
rows = st.lists(few_values, max_size=12) | st.lists(any_values, max_size=12)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(rows, st.sampled_from([torch.float32, torch.float16, torch.bfloat16])), min_size=1, max_size=5),
    st.sampled_from([0.0, 0.01, 0.25, 0.3, 0.5, 0.75, 0.99]),
)
def test_over_the_model_equals_one_sort_of_everything(
    model: list[tuple[list[float], torch.dtype]], amount: float
) -> None:
    tensors = [torch.tensor(row, dtype=torch.float32).to(dtype) for row, dtype in model]
    after = through(Prune(amount=amount, scope="model"), *tensors)
    for found, expected in zip(after, brute_force(tensors, amount), strict=True):
        assert found.dtype == expected.dtype
        assert torch.equal(found.nan_to_num(nan=12345.0), expected.nan_to_num(nan=12345.0))


def test_over_the_model_the_limit_is_exact_inside_a_bin() -> None:
    """Neighbouring floats fall into one bin of the first histogram: the second tells them apart."""
    start = torch.tensor(1.0).view(torch.int32)
    values = (start + torch.arange(1000, dtype=torch.int32)).view(torch.float32)
    shuffled = values[torch.randperm(1000, generator=torch.Generator().manual_seed(0))]
    first, second = through(Prune(amount=0.345, scope="model"), shuffled[:400], shuffled[400:])
    kept = torch.cat([first, second])
    assert sorted(kept[kept != 0].tolist()) == values[345:].tolist()


def test_over_the_model_the_weights_are_streamed_and_not_kept() -> None:
    alive: list[int] = []

    class Stream:
        passes = 0

        def __call__(self) -> Iterable[Weight]:
            self.passes += 1
            for number in range(5):
                alive.append(number)
                yield Weight(str(number), random(4, 4), "linear")

    stream = Stream()
    Prune(amount=0.5, scope="model").prepare(stream, tiny.CONTEXT)
    assert stream.passes == 3
    assert alive == [0, 1, 2, 3, 4] * 3


def test_of_each_tensor_the_weights_are_not_read_beforehand() -> None:
    def never() -> Iterable[Weight]:
        raise AssertionError("the weights were read")

    for stage in (Prune(amount=0.5), Prune(pattern="2:4")):
        stage.prepare(never, tiny.CONTEXT)


def test_two_of_four_along_the_input_axis() -> None:
    matrix = torch.tensor([[1.0, -4.0, 3.0, 2.0, 8.0, 5.0, -6.0, 7.0]])
    expected = [[0.0, -4.0, 3.0, 0.0, 8.0, 0.0, 0.0, 7.0]]
    assert prune_pattern(matrix, keep=2, group=4, axis=-1).tolist() == expected
    assert through(Prune(pattern="2:4"), matrix)[0].tolist() == expected
    (conv1d,) = through(Prune(pattern="2:4"), matrix.T.contiguous(), input_axis=0)
    assert conv1d.T.tolist() == expected
    assert conv1d.is_contiguous()


@pytest.mark.parametrize(("keep", "group"), [(1, 2), (2, 4), (4, 8), (1, 3)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_group_keeps_its_largest(keep: int, group: int, dtype: torch.dtype) -> None:
    tensor = random(5, group * 6, dtype=dtype)
    pruned = prune_pattern(tensor, keep, group, axis=-1)
    groups, before = pruned.reshape(-1, group), tensor.reshape(-1, group)
    assert ((groups != 0).sum(dim=1) == keep).all()
    for row, original in zip(groups, before, strict=True):
        assert sorted(row.abs().tolist())[-keep:] == sorted(original.abs().tolist())[-keep:]
    assert torch.equal(prune_pattern(pruned, keep, group, axis=-1), pruned)


def test_of_equal_ones_in_a_group_the_last_stay() -> None:
    assert prune_pattern(torch.ones(1, 4), 2, 4, -1).tolist() == [[0.0, 0.0, 1.0, 1.0]]
    assert prune_pattern(torch.zeros(1, 4), 2, 4, -1).count_nonzero() == 0


def test_a_pattern_on_a_view_and_on_nothing() -> None:
    tensor = random(8, 6)
    assert torch.equal(prune_pattern(tensor.T, 2, 4, -1), prune_pattern(tensor.T.contiguous(), 2, 4, -1))
    assert prune_pattern(torch.empty(0, 4), 2, 4, -1).shape == (0, 4)
    assert prune_pattern(torch.empty(4, 0), 2, 4, -1).shape == (4, 0)


def test_an_axis_that_does_not_divide_is_refused() -> None:
    with pytest.raises(
        StageError, match=r"^0: its input axis of 6 is no multiple of 4; leave it out with skip: \['0'\]$"
    ):
        through(Prune(pattern="2:4"), random(4, 6))


def test_a_single_value_has_no_input_axis() -> None:
    with pytest.raises(StageError, match=r"^0: .*leave it out with skip: \['0'\]$"):
        through(Prune(pattern="2:4"), torch.tensor(1.0))
