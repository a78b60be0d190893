"""Pushing: what arrives is what was made, what is refused is refused before anything arrives, and who is asked."""

import importlib
import runpy
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fake_hub import FakeHub, check_card, files_of

import optimizer
from optimizer.artifact.card import write_card
from optimizer.errors import ArtifactError, HubError
from optimizer.manifest import describe_files, read_manifest, write_manifest
from optimizer.model.locate import ModelSettings, locate
from optimizer.yaml import load

GOLDEN = Path(__file__).parent / "golden" / "artifacts" / "format_1"
LOG_IN = "log in by `hf auth login`, or set HF_TOKEN"
# Of huggingface_hub's own way to send a large file.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")
Push = Callable[..., tuple[int, str, str]]


@pytest.fixture
def hub(fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake_hub.tokens = {"ours": ("team",), "reading": ()}
    monkeypatch.setenv("HF_TOKEN", "ours")
    return fake_hub


def copied(name: str, directory: Path) -> Path:
    shutil.copytree(GOLDEN / name, directory)
    write_card(directory, read_manifest(directory), load(directory / "recipe.yaml"), figures=None)
    return directory


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return copied("fp16_dense", tmp_path / "artifact")


@pytest.fixture
def push(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Push:
    """`push(*arguments)` runs the command in this process: (exit code, stdout, the last line of stderr)."""

    def run(*arguments: str | Path, answer: str | None = None) -> tuple[int, str, str]:
        def asked(question: str) -> str | None:
            print(question)
            return answer

        monkeypatch.setattr(sys, "argv", ["push", *map(str, arguments)])
        monkeypatch.setattr("sys.stdin.isatty", lambda: answer is not None, raising=False)
        monkeypatch.setattr("builtins.input", asked)
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            runpy.run_module("optimizer.push", run_name="__main__")
        out, err = capfd.readouterr()
        return int(stopped.value.code or 0), out, err.splitlines()[-1] if err else ""

    return run


def refusal(directory: Path, repository: str = "team/small", *, public: bool = False) -> str:
    with pytest.raises(HubError) as caught:
        optimizer.push(directory, repository, public=public)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def pushed(hub: FakeHub, name: str = "team/small") -> dict[str, bytes]:
    repository = hub.repositories[name]
    files = dict(repository.commits[repository.branches["main"]])
    del files[".gitattributes"]
    return files


def commits(hub: FakeHub) -> dict[str, list[str]]:
    return {name: list(repository.commits) for name, repository in hub.repositories.items()}


def test_what_arrives_is_what_was_made_and_private(hub: FakeHub, artifact: Path) -> None:
    before = files_of(artifact)
    (artifact / "notes.txt").write_text("mine")
    address = optimizer.push(artifact, "team/small")
    assert pushed(hub) == before
    assert hub.repositories["team/small"].private
    assert address == f"{hub.address}/team/small/commit/{hub.repositories['team/small'].branches['main']}"
    assert check_card(pushed(hub)["README.md"].decode()) == []
    assert sum("/commit/" in asked for asked in hub.asked) == 1


def test_pushed_again_what_was_left_of_the_earlier_one_is_removed(hub: FakeHub, artifact: Path, tmp_path: Path) -> None:
    (artifact / "old.txt").write_text("old")
    write_manifest(artifact, replace(read_manifest(artifact), files=describe_files(artifact)))
    optimizer.push(artifact, "team/small")
    repository = hub.repositories["team/small"]
    repository.commit(repository.commits[repository.branches["main"]] | {"evaluation.md": b"somebody's"})
    other = copied("int8_dense", tmp_path / "other")
    optimizer.push(other, "team/small")
    assert pushed(hub) == files_of(other) | {"evaluation.md": b"somebody's"}


def test_a_model_of_another_kind_is_not_written_over(hub: FakeHub, artifact: Path, tiny_model) -> None:
    hub.add("team/small", tiny_model("sequence-classification"), private=True)
    hub.add("team/odd", artifact, private=True).commit({"manifest.json": b"[]", "model.safetensors": b""})
    before = commits(hub)
    assert refusal(artifact) == "'team/small' holds what no artifact is (config.json, …); write another name"
    assert "holds what no artifact is" in refusal(artifact, "team/odd")
    assert commits(hub) == before


def test_a_damaged_artifact_and_none_are_refused_before_the_hub_is_asked(hub: FakeHub, artifact: Path) -> None:
    with pytest.raises(ArtifactError, match="is no artifact"):
        optimizer.push(artifact.parent, "team/small")
    with (artifact / "model.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ArtifactError, match="is not what the manifest says"):
        optimizer.push(artifact, "team/small")
    assert hub.asked == []


@pytest.mark.parametrize("name", ["small", "team/small@main", "team/a/b", "./small", "a b"])
def test_a_name_that_is_none(hub: FakeHub, artifact: Path, name: str) -> None:
    assert refusal(artifact, name) == f"'{name}' is no name on the hub; write ORGANIZATION/NAME"
    assert hub.asked == []


def test_tokens_that_are_none_or_may_not(hub: FakeHub, artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "reading")
    assert refusal(artifact) == f"your token has no permission for 'team/small'; {LOG_IN} to one that has"
    monkeypatch.setenv("HF_TOKEN", "expired")
    assert refusal(artifact) == f"the hub does not know your token; {LOG_IN} again"
    monkeypatch.delenv("HF_TOKEN")
    assert refusal(artifact) == f"there is no token to push to 'team/small' with; {LOG_IN}"
    assert hub.repositories == {}


def test_no_network(hub: FakeHub, artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.stop()
    assert refusal(artifact) == "the hub cannot be reached (ConnectError); connect to the network"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert refusal(artifact) == "HF_HUB_OFFLINE forbids to ask the hub; unset it"


def test_a_card_that_the_hub_does_not_take(hub: FakeHub, artifact: Path) -> None:
    (artifact / "README.md").write_text("---\nbase_model: [not, one]\n---\n")
    assert refusal(artifact).startswith(f"{artifact / 'README.md'}: Invalid metadata in README.md. ")


def test_what_is_public_is_public_because_somebody_said_so(hub: FakeHub, artifact: Path) -> None:
    optimizer.push(artifact, "team/open", public=True)
    assert not hub.repositories["team/open"].private
    assert refusal(artifact, "team/open").startswith("'team/open' is public already; write --public")
    optimizer.push(artifact, "team/open", public=True)
    optimizer.push(artifact, "team/small")
    assert refusal(artifact, public=True).startswith("'team/small' is private; leave --public")


def test_the_command_pushes(hub: FakeHub, artifact: Path, push: Push) -> None:
    code, out, _ = push(artifact, "team/small")
    assert code == 0
    address = f"{hub.address}/team/small/commit/{hub.repositories['team/small'].branches['main']}"
    assert out == f"team/small (private): {address}\n"
    assert pushed(hub) == files_of(artifact)


def test_the_command_asks_before_everybody_sees_it(hub: FakeHub, artifact: Path, push: Push) -> None:
    code, out, err = push(artifact, "team/small", "--public", answer="n")
    assert (code, err) == (2, "push: nothing was pushed; leave --public out for a private repository")
    assert "team/small will be seen by everybody." in out
    no_terminal = "push: --public asks, and there is no terminal to ask on; write --yes too"
    assert push(artifact, "team/small", "--public") == (2, "", no_terminal)
    assert hub.repositories == {}
    assert push(artifact, "team/small", "--public", answer="Yes")[0] == 0
    assert not hub.repositories["team/small"].private
    code, out, _ = push(artifact, "team/other", "--public", "--yes")
    assert code == 0
    assert out.startswith(f"team/other (public): {hub.address}/team/other/commit/")


def test_the_command_says_faults_in_a_line(hub: FakeHub, artifact: Path, push: Push) -> None:
    none = f"push: {artifact.parent}: is no artifact (it holds no manifest.json)"
    assert push(artifact.parent, "team/small") == (2, "", none)
    hub.stop()
    unreachable = "push: the hub cannot be reached (ConnectError); connect to the network"
    assert push(artifact, "team/small") == (2, "", unreachable)


def test_the_name_is_the_function_whatever_was_imported() -> None:
    with pytest.raises(ImportError, match=r"optimizer\.push is a function"):
        importlib.import_module("optimizer.push")
    assert callable(optimizer.push)


def test_what_was_pushed_is_an_original_known_by_the_commit_of_that_push(hub: FakeHub, artifact: Path) -> None:
    optimizer.push(artifact, "team/small")
    found = locate(ModelSettings(path="team/small"))
    assert found.commit == hub.repositories["team/small"].branches["main"]
    assert (found.directory / "model.safetensors").read_bytes() == (artifact / "model.safetensors").read_bytes()
