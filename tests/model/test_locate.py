"""Finding the original: the demo, a directory, or a model on the hub, which is never really asked here."""

from pathlib import Path
from typing import Any

import pytest
import tiny

from optimizer import demo
from optimizer.errors import ModelError
from optimizer.model.locate import ModelSettings, locate


class Hub:
    """Stands in for huggingface_hub.snapshot_download: what it has, and what it was asked."""

    def __init__(self, cached: Path | None = None, online: Path | None = None) -> None:
        self.cached, self.online = cached, online
        self.asked: list[str] = []

    def __call__(
        self, name: str, *, revision: str | None, allow_patterns: list[str], local_files_only: bool = False
    ) -> str:
        self.asked.append(f"{'cache' if local_files_only else 'network'} {name} {revision}")
        assert "*.safetensors" in allow_patterns
        found = self.cached if local_files_only else self.online
        if found is None:
            raise ConnectionError("several\nlines of explanation")
        return str(found)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny.save(tiny.bert(), tmp_path / "models" / "tickets")


def use(monkeypatch: pytest.MonkeyPatch, hub: Hub) -> Hub:
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub)
    return hub


def refusal(path: str, revision: str | None = None) -> str:
    with pytest.raises(ModelError) as caught:
        locate(ModelSettings(path=path, revision=revision))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_demo() -> None:
    original = locate(ModelSettings())
    assert (original.directory, original.name, original.is_demo) == (demo.MODEL, "demo", True)


def test_a_directory_goes_by_its_own_name(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = locate(ModelSettings(path=str(model)))
    assert (original.directory, original.name, original.is_demo) == (model, "tickets", False)
    monkeypatch.chdir(model.parent)
    for path in ("tickets", "./tickets", "tickets/", "../models/tickets"):
        assert locate(ModelSettings(path=path)) == original
    monkeypatch.chdir(model)
    assert locate(ModelSettings(path=".")) == original


def test_the_home_directory_may_be_written_short(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(model.parent))
    assert locate(ModelSettings(path="~/tickets")).directory == model


def test_a_directory_called_demo_is_not_the_demo(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    original = locate(ModelSettings(path=str(tmp_path / "demo")))
    assert original.directory == tmp_path / "demo"
    assert not original.is_demo


def test_a_missing_directory_brings_the_nearest(model: Path) -> None:
    path = str(model.with_name("tikets"))
    assert refusal(path) == f"model.path: '{path}' is no directory; did you mean 'tickets'?"
    path = str(model.with_name("entirely-different"))
    assert refusal(path) == f"model.path: '{path}' is no directory; known: tickets"
    path = str(model / "deeper" / "still")
    assert refusal(path) == f"model.path: '{path}' is no directory; nor is '{model / 'deeper'}'"


def test_folders_that_hold_no_model_are_not_suggested(tmp_path: Path) -> None:
    (tmp_path / "wherever").mkdir()
    assert refusal(str(tmp_path / "whereever")).endswith(f"is no directory; '{tmp_path}' holds no model")
    assert refusal("/no-such-model").endswith("is no directory; '/' holds no model")


@pytest.mark.parametrize("path", ["./x", "~/x", "a/b/c", "a b", "~nobody-of-this-name/x"])
def test_what_can_be_no_hub_id_is_not_looked_up(path: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    hub = use(monkeypatch, Hub())
    assert refusal(path).startswith(f"model.path: '{path}' is no directory; ")
    assert hub.asked == []


def test_a_file_is_no_model(model: Path) -> None:
    assert refusal(str(model / "config.json")).startswith("model.path: ")


def test_a_model_in_the_cache_needs_no_network(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = use(monkeypatch, Hub(cached=model))
    original = locate(ModelSettings(path="team/tickets", revision="v1"))
    assert (original.directory, original.name) == (model, "team/tickets")
    assert hub.asked == ["cache team/tickets v1"]


def test_a_model_not_in_the_cache_is_downloaded(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = use(monkeypatch, Hub(online=model))
    assert locate(ModelSettings(path="team/tickets")).directory == model
    assert hub.asked == ["cache team/tickets None", "network team/tickets None"]


def test_a_cache_that_lacks_the_weights_is_filled(model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Loading nothing but a tokenizer leaves a snapshot without weights."""
    (tmp_path / "cached").mkdir()
    (tmp_path / "cached" / "config.json").write_text("{}")
    hub = use(monkeypatch, Hub(cached=tmp_path / "cached", online=model))
    assert locate(ModelSettings(path="team/tickets")).directory == model
    assert len(hub.asked) == 2


def test_a_model_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Path) -> None:
    monkeypatch.chdir(model.parent)
    use(monkeypatch, Hub())
    assert refusal("tikets") == (
        "model.path: 'tikets' is no directory (did you mean 'tickets'?) and cannot be had from the hub "
        "(ConnectionError); write a directory, or connect to the network"
    )


def test_the_hub_is_asked_by_names_it_knows() -> None:
    """Every keyword that `Hub` stands in for is one of the real function."""
    import inspect

    from huggingface_hub import snapshot_download

    parameters: Any = inspect.signature(snapshot_download).parameters
    assert {"repo_id", "revision", "allow_patterns", "local_files_only"} <= set(parameters)
