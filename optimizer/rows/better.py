"""Which way each figure of a row is better."""

from typing import Literal

Better = Literal["less", "more"]

_LESS: Better = "less"
_MORE: Better = "more"

BETTER = dict.fromkeys(
    (
        "artifact_bytes", "size_ratio", "bits_per_parameter", "latency_ms_p50", "latency_ms_p95", "peak_memory_mb",
        "load_ms", "max_logit_difference", "mean_logit_difference", "kl_divergence", "perplexity", "word_error_rate",
        "batch_invariance", "batch_changed", "optimize_seconds",
    ),
    _LESS,
) | dict.fromkeys(
    (
        "agreement", "agreement_low", "accuracy", "cosine_similarity", "speedup", "speedup_low", "texts_per_second",
    ),
    _MORE,
)  # fmt: skip
"""The columns that have a better side."""
