"""The original's predictions on disk: complete, undamaged, or not there."""

from pathlib import Path

import pytest
import torch

from optimizer.evaluation.cache import Recorder, recorded
from optimizer.evaluation.predict import Prediction

FIRST = Prediction(torch.arange(6.0).reshape(2, 3))
SECOND = Prediction(torch.arange(8).reshape(2, 4).to(torch.bfloat16)[:, ::2], torch.arange(4).reshape(2, 2))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "key.safetensors"


def record(path: Path, *predictions: Prediction) -> None:
    recorder = Recorder(path)
    for prediction in predictions:
        recorder.add(prediction)
    assert recorder.write()


def test_what_was_written_is_read_bit_for_bit(path: Path) -> None:
    record(path, FIRST, SECOND)
    found = recorded(path)
    assert found is not None
    for index, prediction in enumerate((FIRST, SECOND)):
        read = found.read(index)
        assert read.logits.dtype == prediction.logits.dtype
        assert torch.equal(read.logits, prediction.logits)
    assert found.read(0).decoder_ids is None
    assert torch.equal(found.read(1).decoder_ids, SECOND.decoder_ids)  # type: ignore[arg-type]


def test_what_was_recorded_can_be_read_at_once(path: Path) -> None:
    recorder = Recorder(path)
    assert recorder.add(FIRST)
    assert recorder.add(SECOND)
    assert torch.equal(recorder.read(1).logits, SECOND.logits)
    assert torch.equal(recorder.read(1).decoder_ids, SECOND.decoder_ids)  # type: ignore[arg-type]
    assert recorder.read(0).decoder_ids is None


def test_predictions_of_inference_mode_are_kept(path: Path) -> None:
    with torch.inference_mode():
        prediction = Prediction(torch.ones(2, 2) * 3)
    record(path, prediction)
    assert recorded(path) is not None


def test_nothing_but_the_file_is_left(path: Path) -> None:
    record(path, FIRST)
    record(path, FIRST)
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_a_failed_write_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Path, target: Path) -> None:
        raise OSError("no space")

    monkeypatch.setattr(Path, "replace", fail)
    recorder = Recorder(path)
    recorder.add(FIRST)
    with pytest.raises(OSError, match="no space"):
        recorder.write()
    assert not list(path.parent.iterdir())


def test_where_nothing_is_nothing_is_found(path: Path) -> None:
    assert recorded(path) is None


@pytest.mark.parametrize("place", [4, 60, -1], ids=["length", "header", "values"])
def test_a_damaged_byte_is_noticed(path: Path, place: int) -> None:
    record(path, FIRST, SECOND)
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert recorded(path) is None


@pytest.mark.parametrize("size", [0, 5, 100, -1])
def test_a_truncated_file_is_noticed(path: Path, size: int) -> None:
    record(path, FIRST, SECOND)
    path.write_bytes(path.read_bytes()[:size])
    assert recorded(path) is None


def test_another_files_tensors_are_noticed(path: Path) -> None:
    from safetensors.torch import save_file

    path.parent.mkdir()
    save_file({"0.logits": FIRST.logits}, path)
    assert recorded(path) is None


def test_too_much_is_not_kept(path: Path) -> None:
    recorder = Recorder(path, largest=FIRST.logits.nbytes + 1)
    recorder.add(FIRST)
    recorder.add(SECOND)
    recorder.add(Prediction(torch.zeros(0, 3)))
    assert not recorder.write()
    assert not path.exists()
