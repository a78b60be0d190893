"""What lies between two results: figures, recipes and answers, as Markdown for a pull request."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from optimizer.errors import ArtifactError
from optimizer.report import answers
from optimizer.report.figures import figure
from optimizer.report.markdown import plain, table
from optimizer.report.pairs import pair, recipe_of
from optimizer.rows import allowances
from optimizer.rows.allowances import Allowance
from optimizer.rows.figure import Figure
from optimizer.rows.found import Result, find
from optimizer.rows.front import CLOSENESS
from optimizer.rows.row import BETTER, FIGURES, Row

_NOISE = 0.05  # of what is timed once, or weighed by the system
_NOISY = ("latency_ms_p50", "latency_ms_p95", "peak_memory_mb", "load_ms", "optimize_seconds")
_TOLD = {
    "artifact_bytes": ("smaller", "larger", "as large"),
    "speedup": ("faster", "slower", "as fast"),
    **dict.fromkeys(CLOSENESS, ("more alike", "less alike", "as alike")),
}
_SAME_TEXTS = ("data_fingerprint", "examples")
_SAME_MACHINE = ("device", "processor", "threads")
_SHARES = {"size_ratio", "batch_invariance", *(name for name, each in FIGURES.items() if "le" in each.range)}


@dataclass(frozen=True)
class Difference:
    """`markdown` says all of it; `missed` has a line for each bound that the second result misses."""

    markdown: str
    missed: list[str]


def diff(first: str | Path, second: str | Path, allow: Iterable[str] | Mapping[str, str | float] = ()) -> Difference:
    """What changed from one place's results to another's: `out` folders, results.csv, row.json, runs or artifacts.

    `allow` is how much worse the second may be, as `size_ratio=+0.01`, or by column: see `allowances.parse`. Raises
    ArtifactError where there are no results, or none that belong together, and RecipeError for what is no bound.
    """
    allowed = allowances.parse(allowances.words(allow) if isinstance(allow, Mapping) else allow)
    pairs = pair(find(Path(first)), find(Path(second)))
    if not pairs.both:
        raise ArtifactError(f"{second}: has no run of a recipe that {first} has too; name a run's folder of each")
    missed = [f"{_name(result)}: is not there" for result in pairs.only_first] if allowed else []
    parts = []
    for before, after in pairs.both:
        misses = _misses(before.row, after.row, allowed)
        missed += [f"{_name(after)}: {miss}" for miss in misses]
        parts.append(_section(before, after, misses))
    for results, where in ((pairs.only_first, first), (pairs.only_second, second)):
        if results:
            names = ", ".join(plain(_name(result)) for result in results)
            parts.append(f"Only in {plain(str(where))}: {names}")
    return Difference("\n\n".join(parts) + "\n", missed)


def _misses(before: Row, after: Row, allowed: Sequence[Allowance]) -> list[str]:
    if allowed and after.status == "failed":
        return [f"failed: {after.error}"]
    return [miss for each in allowed if (miss := each.miss(before, after))]


def _section(before: Result, after: Result, missed: Sequence[str]) -> str:
    parts = [f"### {plain(_name(before))} → {plain(_name(after))}", _headline(before.row, after.row)]
    parts += ["\n".join(f"- **missed**: {plain(miss)}" for miss in missed)] if missed else []
    parts += ["\n".join(f"- {note}" for note in notes)] if (notes := _notes(before.row, after.row)) else []
    if lines := _figures(before.row, after.row):
        parts.append(table(["figure", "before", "after", "change", ""], lines, numeric=(1, 2, 3)))
    if lines := _settings(recipe_of(before), recipe_of(after)):
        parts.append(table(["setting", "before", "after"], lines))
    if _same(before.row, after.row, ("original_fingerprint", *_SAME_TEXTS)):
        parts += answers.between(before.changes, after.changes)
    return "\n\n".join(parts)


def _headline(before: Row, after: Row) -> str:
    """What got larger, slower, less alike, in one line."""
    said = []
    alike = next((name for name in CLOSENESS if _verdict(name, before, after) is not None), None)
    for column, words in _TOLD.items():
        if column in CLOSENESS and column != alike:
            continue  # one figure says how alike
        verdict = _verdict(column, before, after)
        if verdict is not None:
            word = {"better": words[0], "worse": words[1], "same": f"{words[2]} as before"}
            change = f"{_text(before, column)} to {_text(after, column)}"
            said.append(f"{word.get(verdict, f'no {words[1]} beyond chance')} ({change})")
    return "; ".join(said) or "No figure was measured on both sides."


def _notes(before: Row, after: Row) -> list[str]:
    notes = [f"{plain(row.run_id)} {row.status}: {plain(row.error or '')}" for row in (before, after) if row.error]
    if not _same(before, after, ("original_fingerprint",)):
        notes.append("They are of different originals.")
    if not _same(before, after, _SAME_TEXTS):
        notes.append("They were measured on different texts: how alike they are does not compare.")
    if not _same(before, after, _SAME_MACHINE):
        notes.append("They were measured on different machines or threads: latencies do not compare.")
    return notes


def _figures(before: Row, after: Row) -> list[list[str]]:
    """A line for each figure that both have and that differs, with whether that is better."""
    lines = []
    for column in BETTER:
        verdict = _verdict(column, before, after)
        if verdict not in (None, "same"):
            lines.append(
                [column, _text(before, column), _text(after, column), _change(column, before, after), verdict or ""]
            )
    return lines


def _verdict(column: str, before: Row, after: Row) -> str | None:
    """Better, worse, same, or within chance; None where one of the two has no such figure."""
    first, second = getattr(before, column), getattr(after, column)
    if first is None or second is None or not (math.isfinite(first) and math.isfinite(second)):
        return None
    if first == second:
        return "same"
    if _is_chance(column, before, after):
        return "within chance"
    return "better" if (second < first) == (BETTER[column] == "less") else "worse"


def _is_chance(column: str, before: Row, after: Row) -> bool:
    """Whether the intervals overlap, or, of what has none and is noisy, whether they are hardly apart.

    Latencies of two runs are of different moments: what each is to its original, measured in turns, tells them apart.
    """
    stem = "speedup" if column.startswith("latency_ms") else column.removesuffix("_low").removesuffix("_high")
    ends = [getattr(row, f"{stem}_{end}", None) for row in (before, after) for end in ("low", "high")]
    known = [float(end) for end in ends if end is not None]
    if len(known) == len(ends):
        return known[0] <= known[3] and known[2] <= known[1]
    first, second = getattr(before, column), getattr(after, column)
    return column in _NOISY and abs(second - first) <= _NOISE * abs(first)


def _change(column: str, before: Row, after: Row) -> str:
    first, second = getattr(before, column), getattr(after, column)
    if column in _SHARES or not first:
        return f"{second - first:+.4f}"
    return f"{100 * (second - first) / abs(first):+.1f}%"


def _text(row: Row, column: str) -> str:
    if column == "artifact_bytes":
        return f"{figure(row, column)} MB"
    each = FIGURES[column]
    if each.pattern == Figure.pattern and "le" not in each.range:  # of any magnitude
        return f"{getattr(row, column):.4g}"
    return figure(row, column).removesuffix(", as fast")


def _settings(before: Mapping[str, str], after: Mapping[str, str]) -> list[list[str]]:
    """The settings in which two recipes differ; none where one of them is not known."""
    names = dict.fromkeys([*before, *after])
    apart = [name for name in names if before.get(name) != after.get(name)] if before and after else []
    return [[name, before.get(name, ""), after.get(name, "")] for name in apart]


def _same(before: Row, after: Row, columns: Sequence[str]) -> bool:
    """Whether two rows have the same there; where a card does not say it, it may be."""
    known = ((getattr(before, column), getattr(after, column)) for column in columns)
    return all(first == second for first, second in known if first is not None and second is not None)


def _name(result: Result) -> str:
    return result.row.run_id
