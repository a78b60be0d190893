"""Finding the original: the demo, a directory, or a model on the hub, which is one on this machine here."""

from pathlib import Path

import pytest
import tiny
from fake_hub import FakeHub, files_of

from optimizer import demo
from optimizer.errors import ModelError, RecipeError
from optimizer.model.locate import ModelSettings, locate
from optimizer.settings import build


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny.save(tiny.bert(), tmp_path / "models" / "tickets")


def refusal(path: str, revision: str | None = None, *, refresh: bool = False) -> str:
    with pytest.raises(ModelError) as caught:
        locate(ModelSettings(path=path, revision=revision, refresh=refresh))
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


@pytest.mark.parametrize("path", ["./x", "~/x", "a/b/c", "a b", "a/b@", "~nobody-of-this-name/x"])
def test_what_can_be_no_hub_id_is_not_looked_up(
    path: str, fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert refusal(path).startswith(f"model.path: '{path}' is no directory; ")
    assert fake_hub.asked == []


def test_a_file_is_no_model(model: Path) -> None:
    assert refusal(str(model / "config.json")).startswith("model.path: ")


def test_a_model_is_downloaded_once_and_known_by_its_commit(model: Path, fake_hub: FakeHub) -> None:
    sha = fake_hub.add("team/tickets", model).branches["main"]
    original = locate(ModelSettings(path="team/tickets"))
    assert (original.name, original.commit) == ("team/tickets", sha)
    assert files_of(original.directory) == files_of(model)
    asked = len(fake_hub.asked)
    assert locate(ModelSettings(path="team/tickets")) == original
    assert len(fake_hub.asked) == asked


def test_without_a_network_the_cache_is_enough(model: Path, fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_hub.add("team/tickets", model)
    original = locate(ModelSettings(path="team/tickets"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert locate(ModelSettings(path="team/tickets")) == original


def test_a_revision_is_a_branch_a_tag_or_a_commit(model: Path, fake_hub: FakeHub) -> None:
    repository = fake_hub.add("team/tickets", model)
    first = repository.branches["main"]
    second = repository.commit(repository.commits[first] | {"notes.txt": b"x"}, branch="refs/pr/4")
    found = {
        settings: locate(ModelSettings(path=path, revision=revision)).commit
        for settings, path, revision in [
            ("none", "team/tickets", None),
            ("after the @", "team/tickets@refs/pr/4", None),
            ("apart", "team/tickets", "refs/pr/4"),
            ("both", "team/tickets@refs/pr/4", "refs/pr/4"),
            ("a commit", f"team/tickets@{second}", None),
        ]
    }
    assert found == {"none": first} | dict.fromkeys(("after the @", "apart", "both", "a commit"), second)
    assert locate(ModelSettings(path="team/tickets@refs/pr/4")).name == "team/tickets"


def test_two_revisions_are_one_too_many() -> None:
    with pytest.raises(RecipeError, match="path says @v1 and revision 'v2'; write one of them"):
        build(ModelSettings, {"path": "team/tickets@v1", "revision": "v2"}, "model")


def test_a_branch_that_has_moved_is_seen_when_it_is_asked_for(model: Path, fake_hub: FakeHub) -> None:
    repository = fake_hub.add("team/tickets", model)
    before = locate(ModelSettings(path="team/tickets"))
    moved = repository.commit(files_of(model) | {"notes.txt": b"better"})
    assert locate(ModelSettings(path="team/tickets")) == before
    after = locate(ModelSettings(path="team/tickets", refresh=True))
    assert after.commit == moved
    assert (after.directory / "notes.txt").read_bytes() == b"better"
    assert locate(ModelSettings(path="team/tickets")) == after


def test_what_is_not_from_the_hub_cannot_be_asked_for_anew(model: Path) -> None:
    assert refusal(str(model), refresh=True).endswith("is not from the hub; leave it out")
    assert refusal("demo", refresh=True) == "model.refresh: 'demo' is not from the hub; leave it out"


def test_a_cache_that_lacks_the_weights_is_filled(model: Path, fake_hub: FakeHub) -> None:
    """Loading nothing but a tokenizer leaves a snapshot without weights."""
    from huggingface_hub import hf_hub_download

    fake_hub.add("team/tickets", model)
    hf_hub_download("team/tickets", "config.json")
    assert files_of(locate(ModelSettings(path="team/tickets")).directory) == files_of(model)


def test_what_the_hub_has_not_is_said_and_what_to_do(model: Path, fake_hub: FakeHub) -> None:
    fake_hub.add("team/tickets", model)
    assert refusal("team/tikets") == (
        "model.path: 'team/tikets' is no directory (nor is 'team'); the hub shows no 'team/tikets': write it as the "
        "hub does; if it is private, log in by `hf auth login`, or set HF_TOKEN"
    )
    assert refusal("team/tickets@v3") == (
        "model.path: 'team/tickets@v3' is no directory (nor is 'team'); 'team/tickets' has no revision 'v3'; write a "
        "branch, a tag or a commit of it: team/tickets@main"
    )
    assert "has no revision 'v3'" in refusal("team/tickets", "v3")


def test_a_model_that_is_private_or_gated(model: Path, fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_hub.add("team/secret", model, private=True)
    fake_hub.add("team/gated", model, gated=True)
    fake_hub.tokens = {"ours": ("team",), "theirs": ()}
    assert "the hub shows no 'team/secret'" in refusal("team/secret")
    gated = f"'team/gated' is gated: accept its terms at {fake_hub.address}/team/gated, and log in by `hf auth login`"
    assert gated in refusal("team/gated")
    monkeypatch.setenv("HF_TOKEN", "theirs")
    assert "the hub shows no 'team/secret'" in refusal("team/secret")
    assert gated in refusal("team/gated")
    monkeypatch.setenv("HF_TOKEN", "ours")
    assert locate(ModelSettings(path="team/secret")).name == "team/secret"
    monkeypatch.setenv("HF_TOKEN", "expired")
    assert refusal("team/gated").endswith(
        "; the hub does not know your token; log in by `hf auth login`, or set HF_TOKEN again"
    )


def test_no_network_is_said_and_what_to_do(model: Path, fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_hub.add("team/tickets", model)
    monkeypatch.chdir(model.parent)
    fake_hub.stop()
    assert refusal("tikets") == (
        "model.path: 'tikets' is no directory (did you mean 'tickets'?); the hub cannot be reached (ConnectError); "
        "connect to the network, or write a directory"
    )


def test_no_network_is_said_though_the_cache_has_a_commit(model: Path, fake_hub: FakeHub) -> None:
    fake_hub.add("team/tickets", model)
    locate(ModelSettings(path="team/tickets"))
    fake_hub.stop()
    assert "the hub cannot be reached" in refusal("team/tickets", refresh=True)


def test_offline_mode_is_said_and_what_to_do(fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert refusal("team/tickets").endswith(
        "'team/tickets' is not in the cache, and HF_HUB_OFFLINE forbids to ask the hub; unset it, or write a directory"
    )
    assert fake_hub.asked == []


def test_a_hub_that_is_out_of_order(model: Path, fake_hub: FakeHub) -> None:
    fake_hub.add("team/tickets", model)
    fake_hub.broken = 501
    assert refusal("team/tickets").endswith("; the hub answers with error 501; try again later")
