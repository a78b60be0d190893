"""How much worse a second result may be than a first: `size_ratio=+0.01`, `agreement=-0.002`, `latency_ms_p50=+5%`."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from optimizer.errors import RecipeError, nearest
from optimizer.rows.row import BETTER, Row

_BOUND = re.compile(r"([+-](?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|0)(%?)", re.IGNORECASE)
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Allowance:
    """The most by which a column may change for the worse: absolutely, or as a share of the first result's figure."""

    column: str
    change: float
    is_share: bool = False

    def miss(self, before: Row, after: Row) -> str | None:
        """In one line by how much `after` is worse than allowed; None where it is not."""
        first, second = getattr(before, self.column), getattr(after, self.column)
        if first is None or second is None or not math.isfinite(first) or not math.isfinite(second):
            return f"{self.column} was not measured on both sides, allowed {self}"
        change = float(second) - float(first)
        bound = self.change * abs(first) if self.is_share else self.change
        beyond = change - bound if BETTER[self.column] == "less" else bound - change
        if beyond <= _ROUNDING:
            return None
        return f"{self.column} {first:.6g} to {second:.6g}: changed by {change:+.6g}, allowed {self}"

    def __str__(self) -> str:
        return f"{100 * self.change:+g}%" if self.is_share else f"{self.change:+g}"


def parse(words: Iterable[str], where: str = "--allow") -> list[Allowance]:
    """Allowances from COLUMN=+NUMBER, COLUMN=-NUMBER, each also with %; RecipeError, which says `where`, for others."""
    return [_parsed(word, where) for word in words]


def words(allowed: Mapping[str, float | str]) -> list[str]:
    """The same words from numbers, or texts, by column."""
    texts = {key: value if isinstance(value, str) else f"{value:+.15g}" for key, value in allowed.items()}
    return [f"{key}={text}" for key, text in texts.items()]


def _parsed(word: str, where: str) -> Allowance:
    column, equals, text = word.partition("=")
    if not equals:
        raise RecipeError(f"{where}: '{word}' is no bound; write size_ratio=+0.01")
    if column not in BETTER:
        raise RecipeError(f"{where}: unknown figure '{column}'; {nearest(column, BETTER)}")
    found = _BOUND.fullmatch(text)
    if found is None:
        sign = "+" if BETTER[column] == "less" else "-"
        raise RecipeError(f"{where}: {column}: '{text}' is no change; write {column}={sign}0.01, or {column}={sign}5%")
    number = float(found[1])
    return Allowance(column, number / 100 if found[2] else number, bool(found[2]))
