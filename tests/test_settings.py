"""Settings: frozen, strict, and refused in one line that names the remedy."""

import pytest
from pydantic import Field, ValidationError

from optimizer.errors import RecipeError
from optimizer.settings import Settings, build, nearest


class Inner(Settings):
    """Nested settings."""

    width: int = Field(default=1, ge=1)


class Outer(Settings):
    """Settings of every kind."""

    needed: str
    ratio: float = 0.5
    inner: Inner = Inner()


def refusal(values: object, where: str = "outer") -> str:
    with pytest.raises(RecipeError) as caught:
        build(Outer, values, where)
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_values_are_frozen() -> None:
    settings = build(Outer, {"needed": "x"}, "outer")
    with pytest.raises(ValidationError):
        settings.ratio = 1.0


def test_an_integer_is_a_float_and_nothing_else_is_converted() -> None:
    assert build(Outer, {"needed": "x", "ratio": 1}, "outer").ratio == 1.0
    assert refusal({"needed": "x", "ratio": "1"}).startswith("outer.ratio: '1': input should be a valid number")
    assert refusal({"needed": "x", "ratio": True}).startswith("outer.ratio: True: ")
    assert refusal({"needed": 3}).startswith("outer.needed: 3: ")


def test_no_settings_are_the_defaults() -> None:
    assert build(Inner, None, "inner") == Inner()
    assert build(Inner, {}, "inner") == Inner()


def test_a_missing_key_is_named() -> None:
    assert refusal({}) == "outer.needed: is required; write outer.needed=VALUE"
    assert refusal(None) == refusal({})


@pytest.mark.parametrize("values", [3, "needed", ["needed"]])
def test_what_is_no_mapping_is_refused(values: object) -> None:
    assert refusal(values) == f"outer: expected a mapping of settings, found {values!r}"


def test_an_unknown_key_brings_the_nearest() -> None:
    assert refusal({"needed": "x", "ratoi": 1}) == "outer: unknown key 'ratoi'; did you mean 'outer.ratio'?"
    assert refusal({"needed": "x", "zzz": 1}) == "outer: unknown key 'zzz'; known: needed, ratio, inner"
    assert refusal({"needed": "x", 7: 1}) == "outer: unknown key '7'; known: needed, ratio, inner"


def test_an_unknown_key_below_is_looked_for_where_it_stands() -> None:
    line = refusal({"needed": "x", "inner": {"widht": 2}})
    assert line == "outer.inner: unknown key 'widht'; did you mean 'outer.inner.width'?"


def test_out_of_range_below_names_the_whole_path() -> None:
    line = refusal({"needed": "x", "inner": {"width": 0}})
    assert line == "outer.inner.width: 0: input should be greater than or equal to 1"


def test_without_a_place_the_key_alone_is_named() -> None:
    assert refusal({"needed": "x", "ratoi": 1}, where="") == "recipe: unknown key 'ratoi'; did you mean 'ratio'?"
    assert refusal({}, where="") == "needed: is required; write needed=VALUE"


def test_further_faults_are_counted() -> None:
    assert refusal({"needed": 1, "ratio": "x", "zzz": 1}).endswith(" (and 2 more)")


def test_a_multi_line_value_stays_on_one_line() -> None:
    assert refusal({"needed": "x", "ratio": "a\nb"}).startswith(r"outer.ratio: 'a\nb': ")


def test_nearest() -> None:
    assert nearest("prnue", ["prune", "cast"]) == "did you mean 'prune'?"
    assert nearest("zzz", ["prune", "cast"]) == "known: prune, cast"
    assert nearest("zzz", []) == "there are none"
