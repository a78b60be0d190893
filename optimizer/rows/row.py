"""The row of a run: its figures, typed, each column in its group; the one table of figures."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

from optimizer.rows.figure import CORRELATION, NO_ENDS, NOT_NEGATIVE, POSITIVE, SHARE, Better, Figure, Need, Range

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


_LOGITS: tuple[Need, ...] = ("examples", "logits")
_DECISION: tuple[Need, ...] = ("examples", "decision")
_RIGHT: tuple[Need, ...] = ("examples", "class", "labels")
_SETS: tuple[Need, ...] = ("examples", "set", "labels")
_TAGS: tuple[Need, ...] = ("examples", "tags")
_ANSWERS: tuple[Need, ...] = ("examples", "spans", "labels")
_VECTORS: tuple[Need, ...] = ("examples", "vector")
_SCORES: tuple[Need, ...] = ("examples", "number")
_GROUPS: tuple[Need, ...] = (*_SCORES, "group")
_TEXT: tuple[Need, ...] = ("examples", "text")
_TIMED: tuple[Need, ...] = ("repetitions",)


def _column(group: Group) -> Any:
    return field(default=None, metadata={"group": group})


def _figure(
    group: Group, better: Better | None = None, range: Range = NO_ENDS, needs: tuple[Need, ...] = (), **more: Any
) -> Any:
    """A column with its Figure."""
    return field(default=None, metadata={"group": group, "figure": Figure(better, range, needs, **more)})


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What is known of a run; None is not measured, never 0. A new column is one line here, with its group; one that
    measures something says what a Figure says.

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
    artifact_bytes: Count = _figure("size", "less", POSITIVE, title="Size in bytes")
    size_ratio: Number = _figure("size", "less", POSITIVE, title="Size, as a share of the original", pattern="{:.1%}")
    bits_per_parameter: Number = _figure("size", "less", POSITIVE)
    sparsity: Number = _figure("size", "more", SHARE, pattern="{:.1%}")
    agreement: Number = _figure("quality", "more", SHARE, _DECISION, title="Agreement with the original")
    agreement_low: Number = _figure(
        "quality", "more", SHARE, _DECISION, title="Agreement, lower end of its 95 % interval"
    )
    agreement_high: Number = _figure("quality", title="Agreement, upper end of its 95 % interval")
    max_logit_difference: Number = _figure("quality", "less", NOT_NEGATIVE, _LOGITS)
    mean_logit_difference: Number = _figure("quality", "less", NOT_NEGATIVE, _LOGITS)
    kl_divergence: Number = _figure("quality", "less", NOT_NEGATIVE, _DECISION, title="Divergence from the original")
    accuracy: Number = _figure("quality", "more", SHARE, _RIGHT, title="Accuracy")
    original_accuracy: Number = _figure("quality", title="Accuracy of the original")
    perplexity: Number = _figure("quality", "less", POSITIVE, _TEXT, title="Perplexity", pattern="{:.2f}")
    original_perplexity: Number = _figure("quality", title="Perplexity of the original", pattern="{:.2f}")
    cosine_similarity: Number = _figure(
        "quality", "more", CORRELATION, _VECTORS, title="Cosine similarity to the original"
    )
    data: Text = _column("data")
    examples: Count = _figure("data", pattern="{:.0f}")
    latency_ms_p50: Number = _figure("latency", "less", POSITIVE, _TIMED, pattern="{:.1f}")
    latency_ms_p95: Number = _figure("latency", "less", POSITIVE, _TIMED, pattern="{:.1f}")
    original_latency_ms_p50: Number = _column("latency")
    speedup: Number = _figure(
        "latency",
        "more",
        POSITIVE,
        _TIMED,
        title="Speed-up over the original",
        pattern="{:.2f}x",
        at_best="speedup_high",
    )
    peak_memory_mb: Number = _figure("memory", "less", POSITIVE, _TIMED, pattern="{:.0f}")
    optimize_seconds: Number = _figure("cost", "less", pattern="{:.1f}", gated=False)
    evaluate_seconds: Number = _column("cost")
    artifact: Text = _column("run")
    device: Text = _column("environment")
    threads: Count = _column("environment")
    torch_version: Text = _column("environment")
    transformers_version: Text = _column("environment")
    created_at: Text = _column("run")
    original_fingerprint: Text = _column("run")
    data_fingerprint: Text = _column("run")
    speedup_low: Number = _figure("latency", "more", POSITIVE, _TIMED, pattern="{:.2f}x")
    speedup_high: Number = _column("latency")
    batch_invariance: Number = _figure("quality", "less", NOT_NEGATIVE, gated=False)
    batch_changed: Number = _figure("quality", "less", SHARE, _DECISION)
    load_ms: Number = _figure("latency", "less", POSITIVE, _TIMED, pattern="{:.1f}")
    processor: Text = _column("environment")
    calibration_examples: Count = _column("run")
    calibration_fingerprint: Text = _column("run")
    original_latency_ms_p95: Number = _column("latency")
    texts_per_second: Number = _figure("grid", "more", POSITIVE, pattern="{:.1f}", gated=False)
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
    word_error_rate: Number = _figure("quality", "less", NOT_NEGATIVE, ("examples", "heard"))
    cosine_similarity_p1: Number = _figure("quality", "more", CORRELATION, _VECTORS)
    neighbour_agreement: Number = _figure(
        "quality", "more", SHARE, _VECTORS, title="Texts with the same nearest neighbour as by the original"
    )
    neighbour_agreement_low: Number = _figure("quality", "more", SHARE, _VECTORS)
    neighbour_agreement_high: Number = _column("quality")
    neighbour_overlap_10: Number = _figure("quality", "more", SHARE, _VECTORS)
    spearman: Number = _figure(
        "quality", "more", CORRELATION, _SCORES, title="Spearman correlation with the original's scores"
    )
    kendall: Number = _figure("quality", "more", CORRELATION, _SCORES)
    first_answer_agreement: Number = _figure("quality", "more", SHARE, _GROUPS)
    first_answer_agreement_low: Number = _figure("quality", "more", SHARE, _GROUPS)
    first_answer_agreement_high: Number = _column("quality")
    gold_spearman: Number = _figure(
        "quality", "more", CORRELATION, ("examples", "order", "labels"), title="Spearman correlation with the labels"
    )
    original_gold_spearman: Number = _figure("quality", title="Spearman correlation of the original with the labels")
    macro_f1: Number = _figure("quality", "more", SHARE, ("examples", "text label", "labels"), title="Macro F1")
    original_macro_f1: Number = _figure("quality", title="Macro F1 of the original")
    matthews: Number = _figure("quality", "more", CORRELATION, _RIGHT, title="Matthews correlation")
    original_matthews: Number = _figure("quality", title="Matthews correlation of the original")
    calibration_error: Number = _figure("quality", "less", SHARE, _RIGHT, title="Expected calibration error")
    original_calibration_error: Number = _figure("quality", title="Expected calibration error of the original")
    mcnemar_p: Number = _column("quality")
    accuracy_drop_low: Number = _column("quality")
    accuracy_drop_high: Number = _figure("quality", "less", CORRELATION, _RIGHT)
    micro_f1: Number = _figure("quality", "more", SHARE, _SETS, title="Micro F1")
    original_micro_f1: Number = _figure("quality", title="Micro F1 of the original")
    sentence_agreement: Number = _figure("quality", "more", SHARE, _TAGS)
    sentence_agreement_low: Number = _figure("quality", "more", SHARE, _TAGS)
    sentence_agreement_high: Number = _column("quality")
    entity_f1: Number = _figure("quality", "more", SHARE, (*_TAGS, "labels"), title="F1 of entities")
    original_entity_f1: Number = _figure("quality", title="F1 of entities of the original")
    exact_match: Number = _figure("quality", "more", SHARE, _ANSWERS, title="Exact match")
    original_exact_match: Number = _figure("quality", title="Exact match of the original")
    answer_f1: Number = _figure("quality", "more", SHARE, _ANSWERS, title="F1 of answers")
    original_answer_f1: Number = _figure("quality", title="F1 of answers of the original")
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


FIGURES: dict[str, Figure] = {
    column.name: figure for column in _FIELDS if (figure := column.metadata.get("figure")) is not None
}
"""What is known of the columns that measure something, by name."""

BETTER: dict[str, Better] = {name: each.better for name, each in FIGURES.items() if each.better is not None}
"""Which way each figure is better that has a better side."""


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
