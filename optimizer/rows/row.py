"""The row of a run: its figures, typed, each column in its group."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

# ruff: noqa: RUF009 -- _column gives every field a field() of its own

Group = Literal[
    "run", "request", "original", "size", "quality", "data", "latency", "grid", "memory", "cost", "environment"
]
Status = Literal["ok", "rejected", "failed"]

STATUSES: tuple[Status, ...] = get_args(Status)
"""Best first."""

_NOISE = 0.05  # of medians over ten repetitions, on a machine with nothing else to do

Text = str | None
Count = int | None
Number = float | int | None
Cells = list | None  # of mappings, which isinstance could not tell
Setting = float | int | str | None  # of a recipe with two such stages: both values, in a text


def _column(group: Group) -> Any:
    return field(default=None, metadata={"group": group})


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What is known of a run; None is not measured, never 0. A new column is one line here, with its group.

    `further` holds the columns that a later release has written, so that storing the row again loses none.
    """

    run_id: str = field(metadata={"group": "run"})
    status: Status = field(metadata={"group": "run"})
    error: Text = _column("run")
    recipe: Text = _column("run")
    model: Text = _column("run")
    pruning_amount: Setting = _column("request")
    threshold: Setting = _column("request")
    stages: Text = _column("request")
    format: Text = _column("request")
    parameters: Count = _column("original")
    original_bytes: Count = _column("original")
    artifact_bytes: Count = _column("size")
    size_ratio: Number = _column("size")
    bits_per_parameter: Number = _column("size")
    sparsity: Number = _column("size")
    agreement: Number = _column("quality")
    agreement_low: Number = _column("quality")
    agreement_high: Number = _column("quality")
    max_logit_difference: Number = _column("quality")
    mean_logit_difference: Number = _column("quality")
    kl_divergence: Number = _column("quality")
    accuracy: Number = _column("quality")
    original_accuracy: Number = _column("quality")
    perplexity: Number = _column("quality")
    original_perplexity: Number = _column("quality")
    cosine_similarity: Number = _column("quality")
    data: Text = _column("data")
    examples: Count = _column("data")
    latency_ms_p50: Number = _column("latency")
    latency_ms_p95: Number = _column("latency")
    original_latency_ms_p50: Number = _column("latency")
    speedup: Number = _column("latency")
    peak_memory_mb: Number = _column("memory")
    optimize_seconds: Number = _column("cost")
    evaluate_seconds: Number = _column("cost")
    artifact: Text = _column("run")
    device: Text = _column("environment")
    threads: Count = _column("environment")
    torch_version: Text = _column("environment")
    transformers_version: Text = _column("environment")
    created_at: Text = _column("run")
    original_fingerprint: Text = _column("run")
    data_fingerprint: Text = _column("run")
    speedup_low: Number = _column("latency")
    speedup_high: Number = _column("latency")
    batch_invariance: Number = _column("quality")
    batch_changed: Number = _column("quality")
    load_ms: Number = _column("latency")
    processor: Text = _column("environment")
    calibration_examples: Count = _column("run")
    calibration_fingerprint: Text = _column("run")
    original_latency_ms_p95: Number = _column("latency")
    texts_per_second: Number = _column("grid")
    original_texts_per_second: Number = _column("grid")
    latency_grid: Cells = field(default=None, hash=False, metadata={"group": "grid"})
    untouched_ratio: Number = _column("size")
    engine_choice: Text = _column("latency")
    distinct_answers: Count = _column("quality")
    original_distinct_answers: Count = _column("quality")
    original_commit: Text = _column("run")
    evaluation: Text = _column("request")
    counted: Text = _column("data")
    texts_cut: Count = _column("data")
    texts_blank: Count = _column("data")
    word_error_rate: Number = _column("quality")
    data_part: Text = _column("request")
    tracked: Text = _column("run")
    gates: Cells = field(default=None, hash=False, metadata={"group": "run"})
    further: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Row | None":
        """The row of stored values, a column that is not there being None; None if a value is of another kind."""
        found: dict[str, Any] = {name: values.get(name) for name in COLUMNS}
        if found["status"] not in STATUSES or not all(isinstance(found[name], kind) for name, kind in _KINDS.items()):
            return None
        return cls(**found, further={name: values[name] for name in values.keys() - found.keys()})

    def values(self) -> dict[str, Any]:
        """All columns by name, in their order."""
        return {name: getattr(self, name) for name in COLUMNS} | dict(self.further)

    def with_figures(self, figures: Mapping[str, Any]) -> "Row":
        """The row with these columns set."""
        return replace(self, **figures)


_FIELDS = [column for column in fields(Row) if "group" in column.metadata]
_KINDS: dict[str, Any] = {column.name: column.type for column in _FIELDS if column.name != "status"}

COLUMNS = tuple(column.name for column in _FIELDS)
"""The columns in the order of results.csv."""


def columns(*groups: Group) -> tuple[str, ...]:
    """The columns of these groups, in the order of results.csv."""
    return tuple(column.name for column in _FIELDS if column.metadata["group"] in groups)


def is_slower(row: Row) -> bool:
    """Whether a row is slower than its original beyond the noise of measuring: its speedup's interval is below 1.

    Of a row without an interval, as earlier releases left, whether it is slower by more than 5 %.
    """
    if row.speedup_high is not None:
        return row.speedup_high < 1
    return row.speedup is not None and row.speedup < 1 - _NOISE


def is_as_fast(row: Row) -> bool:
    """Whether a row's speedup cannot be told from 1: its interval holds it."""
    return row.speedup_low is not None and row.speedup_high is not None and row.speedup_low <= 1 <= row.speedup_high


def rank(row: Row) -> tuple[int, float, bool, str]:
    """Sorts good rows before rejected before failed, among them the smaller first, and of one size what is unbiased."""
    size = row.size_ratio
    known = math.inf if size is None or math.isnan(size) else size
    return STATUSES.index(row.status), known, not is_held_out(row), row.run_id


def is_held_out(row: Row) -> bool:
    """Whether it was measured on texts that a search kept aside, so that its choosing flatters no figure."""
    return row.data_part == "held_out"
