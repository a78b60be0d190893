"""The mathematics of agreement on tensors small enough to check by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optimizer.evaluation.agreement import (
    IGNORED,
    agrees,
    correct,
    cosine,
    differences,
    divergence,
    negative_log_likelihood,
    wilson,
    wilson_by_text,
    word_errors,
)

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe, Statistics in Medicine 17, 1998, table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_published_values(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson(successes, trials) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share_and_stays_within_zero_and_one(counts: tuple[int, int]) -> None:
    low, high = wilson(*counts)
    assert 0 <= low <= counts[0] / counts[1] <= high <= 1
    assert wilson(counts[1] - counts[0], counts[1]) == pytest.approx((1 - high, 1 - low))


def test_wilson_is_never_certain() -> None:
    assert wilson(1, 1)[0] < 0.25
    assert wilson(0, 1)[1] > 0.75


def test_answers_of_one_text_are_not_independent() -> None:
    apart = wilson_by_text(torch.tensor([9.0, 8, 9, 8, 9, 8, 9, 8, 9, 8] * 10), torch.full((100,), 10.0))
    together = wilson_by_text(torch.tensor([10.0, 7] * 50), torch.full((100,), 10.0))
    assert apart == pytest.approx(wilson(850, 1000))  # varies less than chance would: no narrower for it
    assert together[0] < apart[0] < 0.85 < apart[1] < together[1]
    # Texts that are alike throughout are as many trials as texts.
    assert wilson_by_text(torch.tensor([10.0, 0] * 50), torch.full((100,), 10.0)) == pytest.approx(
        wilson(50, 100), abs=0.002
    )
    assert wilson_by_text(torch.tensor([30.0, 30]), torch.tensor([30.0, 30])) == wilson(2, 2)
    assert wilson_by_text(torch.tensor([3.0]), torch.tensor([4.0])) == wilson(0.75, 1)


def test_rows_agree_when_their_largest_logit_is_the_same() -> None:
    original = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0]])
    artifact = torch.tensor([[5.0, 6.0], [1.0, 2.0], [1.0, 1.0]])
    assert agrees(original, artifact, "class").tolist() == [True, False, True]


def test_a_nan_never_agrees_not_even_with_itself() -> None:
    original = torch.tensor([[1.0, 2.0], [NAN, 2.0], [1.0, NAN], [NAN, NAN]])
    artifact = torch.tensor([[1.0, NAN], [NAN, 2.0], [1.0, 2.0], [NAN, NAN]])
    assert not agrees(original, artifact, "class").any()
    assert not agrees(original, artifact, "set").any()


def test_infinities_agree_by_their_largest() -> None:
    original = torch.tensor([[-INF, 0.0], [INF, 0.0]])
    assert agrees(original, original, "class").all()


def test_sets_agree_when_every_label_does() -> None:
    original = torch.tensor([[1.0, -1.0, 0.0], [1.0, -1.0, 2.0], [-1.0, -1.0, -1.0]])
    artifact = torch.tensor([[9.0, -9.0, -1.0], [1.0, 1.0, 2.0], [-2.0, -3.0, -4.0]])
    assert agrees(original, artifact, "set").tolist() == [True, False, True]


def test_spans_agree_when_start_and_end_do_within_what_is_valid() -> None:
    original = torch.tensor([[[3.0, 1, 9], [1.0, 3, 9]], [[3.0, 1, 0], [1.0, 3, 0]]])
    artifact = torch.tensor([[[3.0, 1, 0], [1.0, 3, 0]], [[3.0, 1, 0], [3.0, 1, 0]]])
    valid = torch.tensor([[[True, True, False]] * 2, [[True, True, True]] * 2])
    assert agrees(original, artifact, "class", valid).tolist() == [True, False]
    assert agrees(original, artifact, "class").tolist() == [False, False]


def test_a_nan_in_padding_does_no_harm() -> None:
    original = torch.tensor([[[3.0, NAN], [3.0, 1.0]]])
    valid = torch.tensor([[[True, False], [True, False]]])
    assert agrees(original, original, "class", valid).all()
    assert differences(original, original, valid).tolist() == [0, 0]
    assert divergence(original, original, "class", valid).tolist() == [0]


def test_differences_of_valid_logits() -> None:
    original = torch.tensor([[1.0, 2.0, 7.0]])
    artifact = torch.tensor([[1.5, 0.0, 9.0]])
    assert differences(original, artifact).tolist() == [0.5, 2.0, 2.0]
    assert differences(original, artifact, torch.tensor([[True, True, False]])).tolist() == [0.5, 2.0]


def test_equal_infinities_differ_by_nothing_and_a_nan_by_nan() -> None:
    original = torch.tensor([[-INF, INF, NAN, 0.0]])
    artifact = torch.tensor([[-INF, -INF, NAN, INF]])
    found = differences(original, artifact)
    assert found[0] == 0
    assert found[1] == INF
    assert found[2].isnan()
    assert found[3] == INF


def test_differences_of_half_precision_do_not_overflow() -> None:
    original = torch.tensor([[60000.0]], dtype=torch.float16)
    assert differences(original, -original).tolist() == [120000.0]


def test_divergence_in_nats() -> None:
    original = torch.tensor([[0.5, 0.5], [0.25, 0.75]]).log()
    artifact = torch.tensor([[0.25, 0.75], [0.25, 0.75]]).log()
    expected = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert divergence(original, artifact, "class").tolist() == pytest.approx([expected, 0.0], abs=1e-6)


def test_divergence_has_a_direction_and_does_not_see_a_common_shift() -> None:
    original, artifact = torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, 0.0]])
    forth = divergence(original, artifact, "class")
    assert not torch.isclose(forth, divergence(artifact, original, "class"))
    assert torch.allclose(forth, divergence(original + 5, artifact - 5, "class"))


def test_divergence_of_independent_outcomes_adds_up() -> None:
    original, artifact = torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 3.0]])

    def binary(first: float, second: float) -> float:
        p, q = 1 / (1 + math.exp(-first)), 1 / (1 + math.exp(-second))
        return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))

    expected = binary(0, 1) + binary(1, 3)
    assert divergence(original, artifact, "set").tolist() == pytest.approx([expected], abs=1e-6)


def test_divergence_of_spans_adds_start_and_end_within_what_is_valid() -> None:
    start, end = torch.tensor([[0.0, 1.0]]), torch.tensor([[2.0, 0.0]])
    other = torch.tensor([[1.0, 1.0]])
    expected = divergence(start, other, "class") + divergence(end, other, "class")
    padded = torch.full((1, 2, 1), 4.0)
    original = torch.cat([torch.stack([start, end], 1), padded], 2)
    artifact = torch.cat([torch.stack([other, other], 1), -padded], 2)
    valid = torch.tensor([[[True, True, False]] * 2])
    assert torch.allclose(divergence(original, artifact, "class", valid), expected)


def test_divergence_from_a_class_that_is_impossible() -> None:
    sure = torch.tensor([[0.0, -INF]])
    unsure = torch.tensor([[0.0, 0.0]])
    assert divergence(sure, sure, "class").tolist() == [0]
    assert divergence(sure, unsure, "class").tolist() == pytest.approx([math.log(2)])
    assert divergence(unsure, sure, "class").tolist() == [INF]
    assert divergence(unsure, torch.tensor([[NAN, 0.0]]), "class").isnan().all()


def test_correct_rows_and_a_nan_is_not() -> None:
    logits = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, NAN]])
    assert correct(logits, torch.tensor([1, 1, 1])).tolist() == [True, False, False]


def test_surprise_is_counted_where_there_is_a_target() -> None:
    logits = torch.tensor([[0.25, 0.75], [0.5, 0.5], [0.9, 0.1]]).log()
    found = negative_log_likelihood(logits, torch.tensor([1, IGNORED, 1]))
    assert found.tolist() == pytest.approx([-math.log(0.75), -math.log(0.1)])
    assert negative_log_likelihood(logits[:1], torch.tensor([IGNORED])).numel() == 0


def test_cosine_of_each_row() -> None:
    original = torch.tensor([[1.0, 0.0], [1.0, 1.0], [2.0, 0.0]])
    artifact = torch.tensor([[0.0, 3.0], [2.0, 2.0], [-1.0, 0.0]])
    assert cosine(original, artifact).tolist() == pytest.approx([0, 1, -1])


def test_strided_logits_give_what_contiguous_ones_give() -> None:
    wide = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    original, artifact = wide[:, ::2], wide[:, 1::2]
    for function in (agrees, divergence):
        assert torch.equal(
            function(original, artifact, "class"), function(original.contiguous(), artifact.contiguous(), "class")
        )


# words


@pytest.mark.parametrize(
    ("original", "artifact", "errors"),
    [
        ("", "", 0),
        ("the cat sees", "the cat sees", 0),
        ("the cat sees", "the dog sees", 1),
        ("the cat sees", "cat sees", 1),
        ("the cat sees", "the big cat sees a dog", 3),
        ("the cat sees", "", 3),
        ("", "a dog", 2),
        ("a b c d", "b c d a", 2),
    ],
)
def test_word_errors_are_the_fewest_changes(original: str, artifact: str, errors: int) -> None:
    assert word_errors(original.split(), artifact.split()) == errors
    assert word_errors(artifact.split(), original.split()) == errors
