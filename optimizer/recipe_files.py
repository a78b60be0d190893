"""A team's recipe files, read before Hydra is: it takes some faults in silence, and names no file of others."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError  # type: ignore[import-untyped]

from optimizer.errors import RecipeError, first_line
from optimizer.yaml import PACKAGE

GROUP = "recipe"
_PACKAGE = re.compile(r"#\s*@package\s+_global_")
_SELF = "_self_"
_AUTO = "auto"  # texts of ours, after the model


def check(names: Sequence[str], folders: Sequence[Path], *, has_model: bool) -> None:
    """Raise RecipeError for a file of these recipes, or of those that they extend, that is no recipe file.

    And for one that fixes the texts and no model, unless the command `has_model`: the demo would be measured on them.
    `folders` are those of the teams; what is not there, or not theirs, is left to Hydra.
    """
    for name in names:
        family = list(_family(name, folders))
        fixing = [path for path, values in family if _is_fixed("data", values)]
        if fixing and not has_model and not any(_is_fixed("model", values) for _, values in family):
            raise RecipeError(
                f"{fixing[0]}: fixes data.path and no model; write model: {{path: DIR}} into it, or model.path=DIR here"
            )


def _is_fixed(key: str, values: Mapping[str, Any]) -> bool:
    """Whether a recipe says which model, or which texts."""
    own = values.get(key)
    chosen = (str(word) for entry in values.get("defaults") or () if isinstance(entry, Mapping) for word in entry)
    by_path = isinstance(own, Mapping) and own.get("path", _AUTO) != _AUTO
    return by_path or (key == "model" and any(word.rpartition("/")[2] == key for word in chosen))


def _family(name: str, folders: Sequence[Path]) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """A team's recipe and those of the team that it extends, each with its file."""
    waiting, known = [name.removesuffix(".yaml")], set[str]()
    while waiting:
        name = waiting.pop()
        path = next((path for folder in folders if (path := folder / GROUP / f"{name}.yaml").is_file()), None)
        if path is None or name in known:
            continue
        known.add(name)
        values = _read(path)
        yield path, values
        extended = (entry for entry in values.get("defaults") or () if isinstance(entry, str) and entry != _SELF)
        waiting += [str(PurePosixPath(name).parent / entry).removeprefix(f"/{GROUP}/") for entry in extended]


def _read(path: Path) -> Mapping[str, Any]:
    """The keys of a recipe file, interpolations as they are written."""
    try:
        text = path.read_text(encoding="utf-8")
        values = OmegaConf.to_container(OmegaConf.create(text), resolve=False) if text.strip() else {}
    except MarkedYAMLError as error:
        where = f"{path}:{error.problem_mark.line + 1}" if error.problem_mark else path
        raise RecipeError(f"{where}: is no YAML ({error.problem or first_line(error)})") from None
    except (OSError, ValueError, OmegaConfBaseException) as error:
        raise RecipeError(f"{path}: cannot be read ({first_line(error)})") from None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if all(line.startswith("#") for line in lines):
        raise RecipeError(f"{path}: is empty; write stages, or defaults: [NAME, {_SELF}] to extend the recipe NAME")
    if not isinstance(values, Mapping):
        raise RecipeError(f"{path}: holds a {type(values).__name__}, no mapping; write settings as KEY: VALUE")
    if not _PACKAGE.fullmatch(lines[0]):
        raise RecipeError(f"{path}: lacks its first line; write '{PACKAGE}' above all others")
    return {str(key): value for key, value in values.items()}
