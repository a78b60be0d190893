"""All that knows Hydra: a command's arguments, composed to plain values."""

import copy
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from optimizer import recipe_files
from optimizer.errors import RecipeError

_PACKAGED = Path(__file__).parent / "conf"
CONF = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parent.parent / "conf"
COMMAND_KEYS = ("out", "force", "keep", "plan", "debug", "report", "track")
LAUNCHER = re.compile(r"[+~]*hydra[./]launcher(?=[=.@]|$)")
_IN_A_RECIPE = "hydra/launcher: a recipe cannot choose the launcher; write hydra/launcher=NAME on the command line"
_SETTING = re.compile(r"(?!hydra\.)([A-Za-z_][\w.]*)=", re.ASCII)  # without a sign, and of no group below another
_KEY = re.compile(r"[+~]*([A-Za-z_][\w/.@-]*)", re.ASCII)
CONFIG_DIR_FLAGS = ("--config-dir", "-cd")
_COMPLETION_FLAGS = ("--shell-completion", "-sc")
_QUERY = frozenset(f"query={shell}" for shell in ("bash", "zsh", "fish"))


def compose(arguments: list[str]) -> list[dict[str, Any]]:
    """The plain values of every combination that the command line asks for; none when it asks for help."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import InstantiationException
    from omegaconf import DictConfig

    if any(flag in arguments for flag in _COMPLETION_FLAGS):
        arguments = _completing(arguments)
    _check_names(arguments)
    has_model = any(_key(argument) in ("model", "model.path") for argument in arguments)
    recipe_files.check(_chosen(arguments), _config_dirs(arguments), has_model=has_model)
    found: list[tuple[DictConfig, Any]] = []
    words, forced = _settable([argument for argument in arguments if not LAUNCHER.match(argument)])
    with _as_hydra_takes_them(words):
        start = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
        try:
            start(lambda config: found.append((config, copy.deepcopy(HydraConfig.get()))))()
        except InstantiationException as error:  # in a sweep, Hydra tries to make a launcher of its own from ours
            raise RecipeError(_IN_A_RECIPE if "_target_" in str(error) else _one_line(error)) from error
        except Exception as error:
            if _QUERY.intersection(arguments):  # half a command, and an error line would stand within what is typed
                return []
            raise RecipeError(_one_line(error)) from error
    for _, settings in found:
        _check_there(settings, forced, tuple(_config_dirs(arguments)))
    plain = [_plain(config, settings) for config, settings in found]
    _check_used([idle for _, idle in plain], sorted({settings.runtime.choices.recipe for _, settings in found}))
    return [values for values, _ in plain]


def _completing(arguments: list[str]) -> list[str]:
    """The arguments of Hydra's shell completion, with the folder of a team's recipes that stands in what is typed."""
    if sys.argv[0].endswith(".py"):
        raise RecipeError("--shell-completion: is for the console script alone; write optimizer -sc install=bash")
    typed = _config_dirs(os.environ.get("COMP_LINE", "").split())
    there = [folder.expanduser() for folder in typed if folder.expanduser().is_dir()]
    return [*arguments, *(word for folder in there[-1:] for word in (CONFIG_DIR_FLAGS[0], str(folder)))]


def _check_used(idle: list[set[str]], recipes: list[str]) -> None:
    """Refuse a knob that is given and that no combination uses."""
    for knob in sorted(set.intersection(*idle)) if idle else ():
        none = f"the recipe '{recipes[0]}' does not use it"
        raise RecipeError(f"{knob}: {none if len(recipes) == 1 else 'none of these recipes uses it'}; leave it out")


def _settable(arguments: list[str]) -> tuple[list[str], frozenset[str]]:
    """The arguments, every setting as a `++KEY=VALUE`, so that a recipe need not have it yet; and those keys.

    Hydra would ask for a `+` where a key is only not set yet, and where it is misspelt: what is no key at all is found
    by what knows them all.
    """
    if any(flag in arguments for flag in _COMPLETION_FLAGS):  # `install=bash` is no setting
        return arguments, frozenset()
    folders = (CONF, *_config_dirs(arguments))
    found, forced = [], set()
    for before, argument in zip(["", *arguments], arguments, strict=False):
        setting = _SETTING.match(argument)
        if setting is None or before in CONFIG_DIR_FLAGS or any((folder / setting[1]).is_dir() for folder in folders):
            found.append(argument)
        else:
            found.append(f"++{argument}")
            forced.add(setting[1])
    return found, frozenset(forced)


def _check_there(hydra: Any, forced: frozenset[str], folders: tuple[Path, ...]) -> None:
    """Refuse settings of a stage, or a search, that the recipe itself has not: being forced they would make one."""
    from optimizer.settings import nearest

    below = sorted(key for key in forced if key.startswith(("stages.", "search.")))
    if not below:
        return
    words = (str(word) for word in hydra.overrides.task)
    labels, searches = _parts(tuple(word for word in words if _key(word) not in forced - {"stages", "search"}), folders)
    recipe = hydra.runtime.choices.recipe
    for place, label, *_ in (key.split(".") for key in below):
        if place == "search" and not searches:
            raise RecipeError(f"search.{label}: the recipe '{recipe}' has no search; leave it out")
        if place == "stages" and label not in labels:
            raise RecipeError(
                f"stages.{label}: the recipe '{recipe}' has no such stage; {nearest(label, labels, 'stages')}; "
                f"a new one takes a plus: +stages.{label}=..."
            )


@cache
def _parts(words: tuple[str, ...], folders: tuple[Path, ...]) -> tuple[tuple[str, ...], bool]:
    """The labels of the stages that these words compose to, and whether there is a search."""
    config = _composed(words, folders)
    return tuple(map(str, config.get("stages") or ())), config.get("search") is not None


def _composed(words: Iterable[str], folders: Iterable[Path]) -> Any:
    """What words of a command compose to, Hydra's own settings with it, outside of any command."""
    from hydra import compose, initialize_config_dir
    from hydra.core.override_parser.types import Quote, QuotedString

    quoted = (QuotedString(f"file://{folder.resolve()}", Quote.single) for folder in folders)
    path = ",".join(folder.with_quotes() for folder in quoted)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", [*words, f"hydra.searchpath=[{path}]"], return_hydra_config=True)


@contextmanager
def _as_hydra_takes_them(arguments: Iterable[str]) -> Iterator[None]:
    """Arguments in sys.argv, and what else Hydra reads of this process; as before in the end."""
    with tempfile.TemporaryDirectory() as scratch:
        # Without the first, Hydra prints several lines and ends the process itself, with exit code 1. It leaves a
        # multirun.yaml in its sweep folder, which config.yaml takes from the second: another argument of ours would
        # stand between a user's flags and their values.
        wanted = {"HYDRA_FULL_ERROR": "1", "OPTIMIZER_SCRATCH": scratch}
        argv, variables = sys.argv, {name: os.environ.get(name) for name in wanted}
        os.environ.update(wanted)
        sys.argv = [sys.argv[0], *arguments]
        try:
            yield
        finally:
            sys.argv = argv
            for name, value in variables.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


def wants_traceback(arguments: list[str]) -> bool:
    """Whether `debug` is set, and to true when last; whatever else may be wrong with the command."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    debug = False
    for argument in arguments:
        with suppress(HydraException):  # a flag, or what the command was refused for
            override = parser.parse_override(argument)
            if override.key_or_group == "debug":
                debug = override.value() is True
    return debug


def _plain(config: Any, hydra: Any) -> tuple[dict[str, Any], set[str]]:
    """The values of a combination, and the knobs that it was given and does not use."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from optimizer.recipe import KEYS, SEARCH
    from optimizer.settings import nearest
    from optimizer.stages import KNOBS

    raw = OmegaConf.to_container(config, resolve=False)
    assert isinstance(raw, dict)
    keys = (*KEYS, SEARCH)
    recipe = {str(key): value for key, value in raw.items() if key in keys}
    referred = set(_referred(recipe))
    overrides = OmegaConf.to_container(hydra.overrides.task, resolve=False)
    assert isinstance(overrides, list)
    given = {_key(str(override)) for override in overrides}
    if hydra.runtime.choices["hydra/launcher"] != "basic":
        raise RecipeError(_IN_A_RECIPE)
    others = [key for key in map(str, raw) if key not in {*keys, *COMMAND_KEYS, *referred}]
    for key in others:
        if key not in KNOBS:
            known = (*keys, recipe_files.GROUP, *COMMAND_KEYS, *KNOBS)
            raise RecipeError(f"recipe: unknown key '{key}'; {nearest(key, known)}")
    try:
        values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise RecipeError(f"{error.full_key}: {_one_line(error)}; write {error.full_key}=VALUE") from None
    assert isinstance(values, dict)
    plain = {str(key): value for key, value in values.items() if key in keys or key in COMMAND_KEYS}
    plain.setdefault("name", hydra.runtime.choices.recipe.replace("/", "-"))
    return plain, given.intersection(others)


def _referred(value: Any) -> Iterator[str]:
    """The first key of every interpolation, `pruning_amount` of `${pruning_amount}`, in an unresolved value."""
    from omegaconf.grammar.gen.OmegaConfGrammarParser import OmegaConfGrammarParser
    from omegaconf.grammar_parser import parse

    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _referred(part)
    elif isinstance(value, str) and "${" in value:
        nodes: list[Any] = [parse(value)]
        while nodes:
            node = nodes.pop()
            if isinstance(node, OmegaConfGrammarParser.InterpolationNodeContext):
                yield node.configKey(0).getText()
            nodes.extend(getattr(node, "children", None) or ())


def compose_launcher(arguments: list[str]) -> dict[str, Any] | None:
    """The settings of the launcher that is asked for; Hydra composes them, and launches nothing by them itself."""
    from omegaconf import OmegaConf

    asked = [argument for argument in arguments if LAUNCHER.match(argument)]
    if not asked:
        return None
    _check_launcher(asked)
    try:
        config = _composed(asked, _config_dirs(arguments))
        values = OmegaConf.to_container(config.hydra.launcher, resolve=True)
    except Exception as error:
        raise RecipeError(_one_line(error)) from error
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _check_launcher(asked: list[str]) -> None:
    """Refuse settings without a launcher that has them, which Hydra would take and nobody read."""
    chosen = [argument.partition("=")[2] for argument in asked if argument.startswith("hydra/launcher=")]
    for argument in asked:
        group = "/launcher" in argument.partition("=")[0]
        if group and not argument.startswith("hydra/launcher="):
            raise RecipeError(f"hydra/launcher: '{argument}' chooses none; write hydra/launcher=joblib")
        if not group and (not chosen or chosen[-1] == "basic"):
            raise RecipeError(
                f"hydra.launcher: '{argument}' needs a launcher that has this setting; "
                "write hydra/launcher=joblib, or another, too"
            )


def _check_names(arguments: list[str]) -> None:
    """Refuse a team's file with the name of a shipped one: Hydra would silently take the shipped one."""
    shipped = sorted(path.relative_to(CONF) for path in CONF.glob("*/**/*.yaml"))
    for directory in _config_dirs(arguments):
        if not directory.is_dir():
            raise RecipeError(f"--config-dir: '{directory}' is no directory; it must hold recipe/NAME.yaml")
        for name in shipped:
            if (directory / name).exists():
                raise RecipeError(
                    f"{directory / name}: '{name.stem}' is the name of a shipped {name.parent}; rename the file"
                )


def _chosen(arguments: list[str]) -> list[str]:
    """The recipes that a command names."""
    named = (argument.partition("=") for argument in arguments)
    return [name for key, _, names in named if key == recipe_files.GROUP for name in names.split(",")]


def _config_dirs(arguments: list[str]) -> list[Path]:
    found = []
    for index, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag in CONFIG_DIR_FLAGS:
            found.append(value if equals else arguments[index + 1] if index + 1 < len(arguments) else "")
    return [Path(value) for value in found]


def _one_line(error: Exception) -> str:
    from hydra.errors import MissingConfigException, OverrideParseException

    from optimizer.settings import nearest

    if isinstance(error, OverrideParseException):
        return " ".join(_unreadable(error.override).split())
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        options = error.options or sorted(path.stem for path in (CONF / group).glob("*.yaml"))
        where = str(error).partition("': ")[0].removeprefix("In '")
        said = f"{group}: no {group} is called '{name}'; {nearest(name, options)}"
        return said if where == "config" else f"{where}: {said}"
    text = str(error).partition("Config search path")[0].partition("full_key:")[0].partition("See https")[0]
    return " ".join(text.split()) or type(error).__name__


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _unreadable(override: str) -> str:
    name, equals, value = override.partition("=")
    key = _KEY.fullmatch(name)
    if key is None or not equals:
        return f"'{override}' is no setting; write KEY=VALUE"
    return f"{key[1]}: '{value}' cannot be read; write {key[1]}='...' in quotes, and \"\" around all of it in a shell"
