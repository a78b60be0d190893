"""A dataset of the hub as texts. The package datasets is a stand-in that knows what of it is used, as its version 4."""

import sys
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest
from fake_hub import FakeHub

from optimizer.data.calibration import share_out
from optimizer.data.labels import check_labels
from optimizer.data.texts import DataSettings, Texts, read
from optimizer.errors import DataError

CLASSIFIER = {"architectures": ["BertForSequenceClassification"]}
SPLITS: dict[str, list[dict[str, Any]]] = {
    "train": [{"text": f"for training {number}", "label": number % 2} for number in range(20)],
    "test": [{"text": "good", "label": 1}, {"text": "bad", "label": 0}],
    "hidden": [{"text": "good", "label": -1}, {"text": "bad", "label": -1}],
}


@dataclass
class ClassLabel:
    names: list[str]


class Table(list[dict[str, Any]]):
    features: ClassVar[dict[str, Any]] = {"text": object(), "label": ClassLabel(["neg", "pos"])}


class DatasetNotFoundError(FileNotFoundError):
    pass


class Datasets(ModuleType):
    """The package, with one dataset, `team/tickets` in the configurations `en` and, the default, None."""

    ClassLabel = ClassLabel
    exceptions = SimpleNamespace(DatasetNotFoundError=DatasetNotFoundError)

    def __init__(self) -> None:
        super().__init__("datasets")
        self.asked: list[tuple[Any, ...]] = []

    def get_dataset_split_names(self, path: str, config_name: str | None, revision: str | None) -> list[str]:
        self._find(path, config_name, revision)
        return list(SPLITS)

    def load_dataset(self, path: str, name: str | None, split: str, revision: str | None) -> Table:
        self._find(path, name, revision)
        if split not in SPLITS:
            raise ValueError(f'Unknown split "{split}".\nShould be one of {list(SPLITS)}.')
        return Table(SPLITS[split])

    def _find(self, path: str, name: str | None, revision: str | None) -> None:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import RepositoryNotFoundError

        self.asked.append((path, name, revision))
        if path == "team/tickets":
            return
        try:
            HfApi().model_info(path)
        except RepositoryNotFoundError:
            raise DatasetNotFoundError(f"Dataset '{path}' doesn't exist on the Hub or cannot be accessed.") from None
        except Exception as error:
            raise ConnectionError(f"Couldn't reach '{path}' on the Hub") from error


@pytest.fixture
def datasets(monkeypatch: pytest.MonkeyPatch) -> Datasets:
    package = Datasets()
    monkeypatch.setitem(sys.modules, "datasets", package)
    return package


def texts(path: str, **settings: Any) -> Texts:
    return read(DataSettings(path=path, **settings), is_demo=False)


def refusal(path: str, **settings: Any) -> str:
    with pytest.raises(DataError) as caught:
        texts(path, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_split_is_texts_with_the_names_of_their_labels(datasets: Datasets) -> None:
    found = texts("team/tickets@v1", split="test", config="en")
    assert found.texts == ("good", "bad")
    assert found.labels == ("pos", "neg")
    assert found.name == "team/tickets (en, test)"
    assert datasets.asked == [("team/tickets", "en", "v1")]
    assert texts("team/tickets", split="test").name == "team/tickets (test)"
    assert texts("team/tickets", split="train", limit=3).texts[2] == "for training 2"


@pytest.mark.usefixtures("datasets")
def test_it_can_be_read_again_from_any_folder(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    found = texts("team/tickets", split="test", calibration="team/tickets", calibration_split="train")
    monkeypatch.chdir(tmp_path)
    assert read(found.source, is_demo=False).fingerprint == found.fingerprint


@pytest.mark.usefixtures("datasets")
def test_labels_that_nobody_knows_are_none() -> None:
    assert texts("team/tickets", split="hidden").labels is None


@pytest.mark.usefixtures("datasets")
def test_labels_are_those_of_the_model_by_name_and_else_by_their_numbers() -> None:
    found = texts("team/tickets", split="test")
    assert check_labels(found, CLASSIFIER | {"id2label": {"0": "pos", "1": "neg"}}) == (0, 1)
    assert check_labels(found, CLASSIFIER) == (1, 0)
    with pytest.raises(DataError, match="does not know 'pos', 'neg'"):
        check_labels(found, CLASSIFIER | {"num_labels": 3})


@pytest.mark.usefixtures("datasets")
def test_a_split_that_is_not_given_or_unknown_is_asked_for() -> None:
    assert refusal("team/tickets") == ("data.split: 'team/tickets' has train, test, hidden; write data.split=test")
    assert refusal("team/tickets", split="tset") == (
        "data.path: 'team/tickets': Unknown split \"tset\". Should be one of ['train', 'test', 'hidden'].; "
        "write data.split=SPLIT, data.config=NAME"
    )


@pytest.mark.usefixtures("datasets")
def test_texts_to_calibrate_on_may_be_another_split() -> None:
    settings = DataSettings(path="team/tickets", split="test", calibration="team/tickets", calibration_split="train")
    shared = share_out(settings, is_demo=False)
    assert (len(shared.measured.texts), len(shared.calibration.texts)) == (2, 20)
    with pytest.raises(DataError, match=r"^data\.calibration_split: 'team/tickets' has train, test, hidden; "):
        share_out(settings.model_copy(update={"calibration_split": None}), is_demo=False)


def test_a_configuration_is_for_each_that_is_a_dataset(datasets: Datasets, tmp_path) -> None:
    file = tmp_path / "others.txt"
    file.write_text("one\ntwo\n")
    share_out(DataSettings(path="team/tickets", split="test", config="en", calibration=str(file)), is_demo=False)
    share_out(
        DataSettings(path=str(file), config="en", calibration="team/tickets", calibration_split="train"), is_demo=False
    )
    assert datasets.asked == [("team/tickets", "en", None)] * 2


def test_without_the_package_it_is_said_which_extra_brings_it(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.chdir(tmp_path)
    assert refusal("team/tickets", split="test") == (
        "data.path: 'team/tickets' does not exist, nor does 'team'; as a dataset of the hub it needs the package "
        "datasets; pip install 'transformer-optimizer[datasets]'"
    )


def test_what_is_there_or_looks_like_a_file_is_no_dataset(datasets: Datasets, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "team").mkdir()
    (tmp_path / "team" / "tickets").touch()
    assert "has an unknown suffix" in refusal("team/tickets")
    assert "does not exist" in refusal("team/tickets.jsonl.gz")
    assert "matches no file" in refusal("team/*.jsonl")
    assert datasets.asked == []


@pytest.mark.usefixtures("datasets")
def test_what_the_hub_has_not_and_no_network_are_said(fake_hub: FakeHub, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    assert refusal("team/other", split="test") == (
        "data.path: 'team/other' does not exist, nor does 'team'; Dataset 'team/other' doesn't exist on the Hub or "
        "cannot be accessed; write it as the hub does, or log in by `hf auth login`, or set HF_TOKEN"
    )
    fake_hub.stop()
    assert refusal("team/other", split="test").endswith(
        "; the hub cannot be reached (ConnectionError); connect to the network, or write a file"
    )
