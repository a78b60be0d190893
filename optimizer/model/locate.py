"""Find the original that a recipe names: the demo, a directory, or a model on the hub."""

import re
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import Field

from optimizer import demo
from optimizer.errors import ModelError
from optimizer.model.checkpoint import open_shards
from optimizer.model.directory import home
from optimizer.settings import Settings, nearest

DEMO = "demo"
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
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
    """Which model: `path` is a directory, a hub id, or `demo`."""

    path: str = Field(default="demo", min_length=1)
    revision: str | None = None


@dataclass(frozen=True)
class Original:
    """A model directory on this machine, and the name it goes by."""

    directory: Path
    name: str

    @property
    def is_demo(self) -> bool:
        """Whether it is the model shipped with this package."""
        return self.directory == demo.MODEL


def name_of(settings: ModelSettings) -> str:
    """The name that an original goes by, whether it is to be had or not: of a directory its last part alone."""
    if settings.path == DEMO:
        return DEMO
    directory = _directory(settings)
    if directory.is_dir() or not _may_be_on_the_hub(settings):
        return directory.resolve().name
    return settings.path


def locate(settings: ModelSettings) -> Original:
    """The original; a hub id is looked up in huggingface_hub's own cache first and downloaded when it is not there.

    Raises ModelError when there is no such directory and no such model to be had.
    """
    if settings.path == DEMO:
        return Original(demo.MODEL, DEMO)
    directory = _directory(settings)
    if directory.is_dir():
        return Original(directory.resolve(), name_of(settings))
    if not _may_be_on_the_hub(settings):
        raise ModelError(f"model.path: '{settings.path}' is no directory; {_near(directory)}")
    return Original(_from_hub(settings, directory), name_of(settings))


def _directory(settings: ModelSettings) -> Path:
    directory = Path(settings.path)
    with suppress(RuntimeError):  # ~name of nobody's home
        return directory.expanduser()
    return directory


def _may_be_on_the_hub(settings: ModelSettings) -> bool:
    return not settings.path.startswith((".", "/", "~")) and _HUB_ID.fullmatch(settings.path) is not None


def _from_hub(settings: ModelSettings, directory: Path) -> Path:
    from huggingface_hub import snapshot_download

    download = partial(snapshot_download, settings.path, revision=settings.revision, allow_patterns=_FILES)
    with suppress(Exception):  # not in the cache, or only in part (somebody wanted just its tokenizer): ask the hub
        cached = Path(download(local_files_only=True))
        open_shards(home(cached))
        return cached
    try:
        return Path(download())
    except Exception as error:
        raise ModelError(
            f"model.path: '{settings.path}' is no directory ({_near(directory)}) and cannot be had from the hub "
            f"({type(error).__name__}); write a directory, or connect to the network"
        ) from None


def _near(directory: Path) -> str:
    parent = directory.parent
    if not parent.is_dir():
        return f"nor is '{parent}'"
    folders = [path.name for path in sorted(parent.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    return nearest(directory.name, folders[:20])
