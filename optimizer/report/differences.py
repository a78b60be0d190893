"""The settings of recipes by dotted names, and those in which recipes differ."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from optimizer.report.figures import printable
from optimizer.yaml import load


def settings(values: Mapping[str, Any]) -> dict[str, str]:
    """The settings of a recipe's values by dotted name, with the order of the stages as one more."""
    stages = values.get("stages")
    order = {"stages": " ".join(map(str, stages))} if isinstance(stages, dict) else {}
    return order | {name: _plain(value) for name, value in _flat(values)}


def settings_of(recipe: Path) -> dict[str, str] | None:
    """The settings of a recipe file; None for what is no recipe."""
    try:
        return settings(load(recipe))
    except (OSError, ValueError, AssertionError, YAMLError, OmegaConfBaseException):
        return None


def differences(groups: Sequence[Any], known: Sequence[Mapping[str, str] | None]) -> list[dict[str, str]]:
    """For each of `known` the settings that vary among those of its group; none where they are not known.

    A setting that a recipe does not have is left out: `stages`, their order, tells which stages it lacks.
    """
    gathered: dict[Any, list[Mapping[str, str]]] = defaultdict(list)
    for group, each in zip(groups, known, strict=True):
        if each is not None:
            gathered[group].append(each)
    varying = {group: _varying(members) for group, members in gathered.items()}
    return [
        {name: each[name] for name in varying[group] if name in each} if each else {}
        for group, each in zip(groups, known, strict=True)
    ]


def _flat(values: Mapping[Any, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _plain(value: Any) -> str:
    """A value as it would be written on the command line."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list):
        return f"[{', '.join(map(_plain, value))}]"
    return printable(value)


def _varying(group: Sequence[Mapping[str, str]]) -> list[str]:
    names = dict.fromkeys(name for known in group for name in known)
    return [name for name in names if len({known.get(name) for known in group}) > 1]
