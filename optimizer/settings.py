"""What every settings type shares: frozen, no unknown keys, no silent conversions."""

from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from optimizer.errors import RecipeError, nearest

__all__ = ["Settings", "build", "nearest"]


class Settings(BaseModel):
    """Frozen, validated values whose field names are exactly their YAML keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


T = TypeVar("T", bound="Settings")


def build(kind: type[T], values: Any, where: str) -> T:
    """Validate `values` as `kind`; RecipeError names the key below `where`, the fault and the remedy."""
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise RecipeError(f"{where}: expected a mapping of settings, found {values!r}")
    try:
        return kind(**{str(key): value for key, value in values.items()})
    except ValidationError as error:
        raise RecipeError(_line(kind, error, where)) from None


def _line(kind: type[Settings], error: ValidationError, where: str) -> str:
    first, *others = error.errors(include_url=False)
    key = ".".join(str(part) for part in first["loc"])
    path = f"{where}.{key}" if where and key else where or key
    if first["type"] == "extra_forbidden":
        parent = path.rpartition(".")[0]
        unknown = str(first["loc"][-1])
        tail = nearest(unknown, _keys(kind, first["loc"][:-1]), parent)
        text = f"{parent or 'recipe'}: unknown key '{unknown}'; {tail}"
    elif first["type"] == "missing":
        text = f"{path}: is required; write {path}=VALUE"
    else:
        message = first["msg"].removeprefix("Value error, ")
        found = f"{first['input']!r}: " if key else ""  # without a key it is about several of them
        text = f"{path}: {found}{message[0].lower()}{message[1:]}"
    return f"{text} (and {len(others)} more)" if others else text


def _keys(kind: type[Settings], path: tuple[int | str, ...]) -> list[str]:
    for part in path:
        field = kind.model_fields.get(str(part))
        choices = () if field is None else (field.annotation, *get_args(field.annotation))  # X, or X | None
        inner = [choice for choice in choices if isinstance(choice, type) and issubclass(choice, Settings)]
        if not inner:
            return []
        kind = inner[0]
    return list(kind.model_fields)
