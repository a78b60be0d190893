"""Upload an artifact to the hub: checked before, whole in one commit, private unless it is said otherwise."""

import json
from dataclasses import dataclass
from pathlib import Path

from optimizer import hub
from optimizer.errors import HubError
from optimizer.manifest import CARD, NAME, Manifest, verify

_EMPTY = {".gitattributes", CARD, "LICENSE"}  # what a repository may hold that holds no model yet


@dataclass(frozen=True)
class Upload:
    """An artifact that is what its manifest says, and the repository that it may go to.

    `exists` says that this is there already, `stale` which files an artifact pushed earlier has left and this has not.
    """

    directory: Path
    manifest: Manifest
    where: hub.Named
    public: bool
    exists: bool
    stale: tuple[str, ...]

    @property
    def files(self) -> tuple[str, ...]:
        """What is uploaded: what the manifest lists, itself and the card, and nothing that lies beside them."""
        beside = [name for name in (NAME, CARD) if (self.directory / name).is_file()]
        return (*self.manifest.files, *beside)


def push(directory: str | Path, repository: str, *, public: bool = False) -> str:
    """Upload an artifact to `organization/name` on the hub, private unless `public`; returns the commit's address.

    What an artifact pushed earlier has left there is replaced. Raises ArtifactError when the directory is not what its
    manifest says, HubError when the hub cannot be reached or refuses it.
    """
    return send(check(Path(directory), repository, public=public))


def check(directory: Path, repository: str, *, public: bool) -> Upload:
    """Everything that can be refused before anything is written; raises as `push` does."""
    from huggingface_hub import HfApi, get_token

    manifest = verify(directory)
    where = hub.named(repository)
    if where is None or "/" not in where.name or where.revision:
        raise HubError(f"'{repository}' is no name on the hub; write ORGANIZATION/NAME")
    try:
        if get_token() is None:
            raise HubError(f"there is no token to push to '{where.name}' with; {hub.LOG_IN}")
        private = _private(where.name)
        files = HfApi().list_repo_files(where.name) if private is not None else []
        earlier = _earlier(where.name) if NAME in files else None
    except HubError:
        raise
    except Exception as error:
        raise HubError(hub.fault(error, where)) from None
    _check_visibility(where.name, private, public)
    others = sorted(set(files) - _EMPTY) if earlier is None else []
    if others:
        raise HubError(f"'{where.name}' holds what no artifact is ({others[0]}, …); write another name")
    stale = set(files) & (earlier or set()) - {*manifest.files, NAME, CARD}
    return Upload(directory, manifest, where, public, private is not None, tuple(sorted(stale)))


def _private(name: str) -> bool | None:
    """Whether a repository is private; None where there is none that the token may see."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return bool(HfApi().model_info(name).private)
    except RepositoryNotFoundError:
        return None


def _check_visibility(name: str, private: bool | None, public: bool) -> None:
    if private is False and not public:
        raise HubError(f"'{name}' is public already; write --public (public=True) to push there, or another name")
    if private and public:
        raise HubError(f"'{name}' is private; leave --public (public=True) out, or make it public on the hub first")


def _earlier(name: str) -> set[str] | None:
    """The files of the artifact that was pushed before; None if there is none, but another kind of manifest.json."""
    from huggingface_hub import hf_hub_download

    try:
        values = json.loads(Path(hf_hub_download(name, NAME)).read_text(encoding="utf-8"))
        return set(values["files"]) if values["original_fingerprint"] else None
    except (ValueError, TypeError, KeyError):
        return None


def send(upload: Upload) -> str:
    """Make the repository if it is not there, and the commit; returns its address. Raises HubError."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api, name = HfApi(), upload.where.name
    message = f"{upload.manifest.original}, optimized by transformer-optimizer"
    added = [CommitOperationAdd(file, upload.directory / file) for file in upload.files]
    removed = [CommitOperationDelete(file, is_folder=False) for file in upload.stale]
    try:
        if not upload.exists:
            api.create_repo(name, private=not upload.public)
        return str(api.create_commit(name, [*removed, *added], commit_message=message).commit_url)
    except Exception as error:
        if type(error) is ValueError:  # what the hub does not take of a card, by huggingface_hub
            raise HubError(f"{upload.directory / CARD}: {' '.join(str(error).split())}") from None
        raise HubError(hub.fault(error, upload.where)) from None
