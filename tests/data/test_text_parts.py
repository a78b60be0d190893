"""The part of the texts that a search does not see: always the same, never seen, never calibrated on otherwise."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from optimizer.data.calibration import measured, share_out
from optimizer.data.parts import by_hash, held_out_count, part
from optimizer.data.texts import DataSettings, Texts, fingerprint
from optimizer.errors import DataError, RecipeError
from optimizer.settings import build

SEARCHED = DataSettings(part="searched", held_out=30)
HELD_OUT = DataSettings(part="held_out", held_out=30)


def numbered(count: int) -> Texts:
    words = tuple(f"text {number}" for number in range(count))
    labels = tuple(str(number) for number in range(count))
    return Texts(words, labels, "texts.jsonl", fingerprint(words, labels), DataSettings())


def file(tmp_path: Path, texts: Texts) -> Path:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts.texts))
    return path


@pytest.mark.parametrize(
    ("texts", "share", "count"),
    [(4500, 0.3, 1350), (2000, 0.3, 600), (1600, 0.3, 500), (1000, 0.3, 500), (999, 0.3, None), (3000, 0.5, 1500)],
)
def test_the_share_but_never_fewer_than_500_and_never_more_than_half(texts: int, share: float, count: int) -> None:
    assert held_out_count(texts, share) == count


def test_the_two_parts_share_no_text_and_lose_none_with_labels_and_numbers() -> None:
    texts = numbered(100)
    searched, held_out = part(texts, SEARCHED), part(texts, HELD_OUT)
    assert len(held_out.texts) == 30
    assert sorted(searched.texts + held_out.texts) == sorted(texts.texts)
    assert len({texts.fingerprint, searched.fingerprint, held_out.fingerprint}) == 3
    for each in (searched, held_out):
        assert each.labels is not None
        assert [f"text {label}" for label in each.labels] == list(each.texts)
        assert [texts.texts[each.number(index)] for index in range(len(each.texts))] == list(each.texts)


def test_which_are_held_out_depends_on_no_order_and_equal_texts_stay_together() -> None:
    texts = numbered(100).texts
    shuffled = tuple(random.Random(1).sample(texts * 2, 200))
    mixed = Texts(shuffled, None, "texts.jsonl", fingerprint(shuffled, None), DataSettings())
    assert set(part(mixed, HELD_OUT).texts) == set(part(numbered(100), HELD_OUT).texts)
    assert len(part(mixed, HELD_OUT).texts) == 60
    assert by_hash(shuffled) == by_hash(texts)


def test_a_group_stays_together_with_its_words_and_labels() -> None:
    plain = numbered(100)
    groups, words = tuple(f"question {number // 7}" for number in range(100)), tuple((text,) for text in plain.texts)
    texts = replace(plain, groups=groups, tokens=words)
    searched, held_out = part(texts, SEARCHED), part(texts, HELD_OUT)
    assert searched.groups is not None
    assert held_out.groups is not None
    assert not set(searched.groups) & set(held_out.groups)
    assert 30 <= len(held_out.texts) < 30 + 7
    assert sorted(searched.texts + held_out.texts) == sorted(plain.texts)
    for each in (searched, held_out):
        assert each.tokens == tuple((text,) for text in each.texts)
        assert each.groups == tuple(groups[each.number(index)] for index in range(len(each.texts)))
    with pytest.raises(DataError, match=r"leave none; write fewer, or for a search search.holdout=0$"):
        part(replace(texts, groups=("all",) * 100), HELD_OUT)


def test_both_parts_are_calibrated_on_the_same_texts_which_are_in_neither(tmp_path: Path) -> None:
    path = str(file(tmp_path, numbered(500)))
    parts = [
        share_out(settings.model_copy(update={"path": path}), is_demo=False)
        for settings in (DataSettings(), SEARCHED, HELD_OUT)
    ]
    assert len({shared.calibration.fingerprint for shared in parts}) == 1
    everything, searched, held_out = (set(shared.measured.texts) for shared in parts)
    assert searched | held_out == everything
    assert not searched & held_out
    assert not everything & set(parts[0].calibration.texts)
    for settings, shared in zip((SEARCHED, HELD_OUT), parts[1:], strict=True):
        again = measured(shared.measured.source, is_demo=False, calibrated=True)
        assert again == shared.measured, settings


def test_what_leaves_nothing_and_what_is_half_said_is_refused() -> None:
    with pytest.raises(DataError, match=r"^data\.held_out: 30 of the 30 different texts of texts\.jsonl leave none"):
        part(numbered(30), SEARCHED)
    for half in ({"part": "held_out"}, {"held_out": 500}):
        with pytest.raises(RecipeError, match=r"^data: part and held_out go together; write part: held_out"):
            build(DataSettings, half, "data")


def test_settings_that_are_not_set_are_in_no_recipe() -> None:
    assert not {"part", "held_out"} & DataSettings().values().keys()
    assert HELD_OUT.values()["part"] == "held_out"
