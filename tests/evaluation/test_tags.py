"""Entities by seqeval's rules: against that library where it is there, and by hand."""

import random
from typing import Any

import pytest

from optimizer.evaluation.agreement import wilson
from optimizer.evaluation.tags import entities, entity_f1, figures

SCHEMES = {
    "IOB2": ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"],
    "IOBES": ["O", "B-PER", "I-PER", "E-PER", "S-PER", "B-LOC", "E-LOC"],
    "types alone": ["O", "PER", "LOC"],
}


@pytest.mark.filterwarnings("ignore:.*seems not to be NE tag")
@pytest.mark.parametrize("scheme", SCHEMES)
def test_against_seqeval(scheme: str) -> None:
    metrics: Any = pytest.importorskip("seqeval.metrics")
    labelling: Any = pytest.importorskip("seqeval.metrics.sequence_labeling")
    drawn = random.Random(0)
    right, said = ([[drawn.choice(SCHEMES[scheme]) for _ in range(9)] for _ in range(40)] for _ in range(2))
    for tags in (*right, *said):
        assert entities(tags) == set(labelling.get_entities(tags, suffix=False))
    assert entity_f1(said, right) == pytest.approx(metrics.f1_score(right, said))


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("", set()),
        ("O O", set()),
        ("B-PER I-PER O", {("PER", 0, 1)}),
        ("B-PER B-PER", {("PER", 0, 0), ("PER", 1, 1)}),
        ("I-PER I-LOC", {("PER", 0, 0), ("LOC", 1, 1)}),
        ("O I-PER", {("PER", 1, 1)}),
        ("B-PER E-PER S-LOC", {("PER", 0, 1), ("LOC", 2, 2)}),
        ("B-A-B I-A-B", {("A-B", 0, 1)}),
        ("B I", {("_", 0, 1)}),
    ],
)
def test_entities_by_hand(tags: str, found: set[tuple[str, int, int]]) -> None:
    assert entities(tags.split()) == found


def test_f1_counts_whole_entities_of_the_right_type() -> None:
    right = [["B-PER", "I-PER", "O", "B-LOC"]]
    assert entity_f1([["B-PER", "I-PER", "O", "B-PER"]], right) == 0.5
    assert entity_f1([["B-PER", "O", "O", "O"]], right) == 0
    assert entity_f1([["O", "O"]], [["O", "O"]]) is None


def test_a_sentence_is_alike_where_all_its_words_are() -> None:
    original, artifact = [["O", "B-PER"], ["O"], []], [["O", "O"], ["O"], []]
    found = figures(original, artifact, None)
    assert found["sentence_agreement"] == pytest.approx(2 / 3)
    assert (found["sentence_agreement_low"], found["sentence_agreement_high"]) == wilson(2, 3)
    with_gold = figures(original, artifact, [["O", "B-PER"], ["O"], []])
    assert (with_gold["entity_f1"], with_gold["original_entity_f1"]) == (0, 1)
