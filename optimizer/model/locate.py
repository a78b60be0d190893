"""Find the original that a recipe names: the demo, a directory, or a model on the hub."""

from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from optimizer import demo, hub
from optimizer.errors import ModelError
from optimizer.model.directory import home
from optimizer.model.shards import open_shards
from optimizer.settings import Settings, nearest

DEMO = "demo"
_SNAPSHOTS = "snapshots"  # the folder of commits in huggingface_hub's cache
_MOST_NAMED = 20
_FILES = [
    "*.json",
    "*.safetensors",
    "pytorch_model*.bin",
    "*/pytorch_model*.bin",
    "*.txt",
    "*.model",
    "*.md",
    "*.jinja",
    "LICENSE*",
]


class ModelSettings(Settings):
    """Which model: `path` is a directory, `organization/name` or `organization/name@revision` on the hub, or `demo`.

    `revision` is the same as after the @; `refresh` asks the hub for a branch's newest commit although the cache has
    one.
    """

    path: str = Field(default="demo", min_length=1)
    revision: str | None = None
    refresh: bool = False

    @model_validator(mode="after")
    def _one_revision(self) -> Self:
        named = hub.named(self.path)
        if named and named.revision and self.revision not in (None, named.revision):
            raise ValueError(f"path says @{named.revision} and revision '{self.revision}'; write one of them")
        return self

    def values(self) -> dict[str, Any]:
        """The keys of a recipe file; what came later only where it is set, so that no recipe changes by it."""
        return self.model_dump(exclude=set() if self.refresh else {"refresh"})


@dataclass(frozen=True)
class Original:
    """A model directory on this machine, and the name it goes by; of one from the hub the commit, in hexadecimal."""

    directory: Path
    name: str
    commit: str | None = None

    @property
    def is_demo(self) -> bool:
        """Whether it is the model shipped with this package."""
        return self.directory == demo.MODEL


def name_of(settings: ModelSettings) -> str:
    """The name that an original goes by, whether it is to be had or not: of a directory its last part alone."""
    if settings.path == DEMO:
        return DEMO
    directory = _directory(settings)
    named = hub.named(settings.path)
    return directory.resolve().name if directory.is_dir() or named is None else named.name


def locate(settings: ModelSettings) -> Original:
    """The original; a name on the hub is looked up in huggingface_hub's own cache first, unless it is to be refreshed.

    Raises ModelError when there is no such directory and no such model to be had.
    """
    directory = _directory(settings)
    if settings.refresh and (settings.path == DEMO or directory.is_dir()):
        raise ModelError(f"model.refresh: '{settings.path}' is not from the hub; leave it out")
    if settings.path == DEMO:
        return Original(demo.MODEL, DEMO)
    if directory.is_dir():
        return Original(directory.resolve(), name_of(settings))
    named = hub.named(settings.path)
    if named is None:
        raise ModelError(f"model.path: '{settings.path}' is no directory; {_near(directory)}")
    where = named._replace(revision=named.revision or settings.revision)
    try:
        snapshot = _snapshot(where, settings.refresh)
    except Exception as error:
        fault = hub.fault(error, where, "a directory")
        raise ModelError(f"model.path: '{settings.path}' is no directory ({_near(directory)}); {fault}") from None
    return Original(snapshot, where.name, snapshot.name if snapshot.parent.name == _SNAPSHOTS else None)


def _directory(settings: ModelSettings) -> Path:
    directory = Path(settings.path)
    with suppress(RuntimeError):  # ~name of nobody's home
        return directory.expanduser()
    return directory


def _snapshot(where: hub.Named, refresh: bool) -> Path:
    """The folder of a commit in huggingface_hub's cache; raises whatever huggingface_hub does."""
    from huggingface_hub import HfApi, snapshot_download

    download = partial(snapshot_download, where.name, revision=where.revision, allow_patterns=_FILES)
    if refresh:
        # Of a hub that cannot be reached the download below says nothing, and takes what the cache has.
        HfApi().model_info(where.name, revision=where.revision)
        return Path(download())
    with suppress(Exception):  # not in the cache, or only in part (somebody wanted just its tokenizer): ask the hub
        cached = Path(download(local_files_only=True))
        open_shards(home(cached))
        return cached
    return Path(download())


def _near(directory: Path) -> str:
    parent = directory.parent
    if not parent.is_dir():
        return f"nor is '{parent}'"
    models = sorted(path.parent.name for path in parent.glob("*/config.json"))
    return nearest(directory.name, models[:_MOST_NAMED]) if models else f"'{parent}' holds no model"
