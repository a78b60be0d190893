"""Trained models of several families, through the command line; only where they are at hand, beside the repository."""

from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import rows

SHARED = Path(__file__).parent.parent / "../shared"
CLASSIFIERS = ("bert-intents", "deberta-toxic")
MODELS = (*CLASSIFIERS, "ticket-classifier", "gpt2-legacy-pickle", "stories260k")

Command = Callable[..., tuple[int, str, str]]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (SHARED / "models").is_dir(), reason="needs trained models, which are not shipped"),
]


@pytest.fixture
def run(optimizer: Command, tmp_path: Path) -> Callable[..., dict[str, str]]:
    """`run(model, *settings)` is the row of a run on a trained model."""

    def row_of(model: str, *settings: str) -> dict[str, str]:
        code, _, err = optimizer(f"model.path={SHARED.resolve() / 'models' / model}", *settings)
        assert code == 0, err
        (row,) = rows(tmp_path / "outputs")
        return row

    return row_of


def texts(model: str) -> list[str]:
    """The setting that gives a model its own texts, where there are any."""
    own = SHARED.resolve() / "data" / f"{model}-test.jsonl"
    return [f"data.path={own}"] if own.exists() else []


@pytest.mark.parametrize("model", MODELS)
def test_balanced_is_small_and_measured(run: Callable[..., dict[str, str]], model: str) -> None:
    row = run(model, "recipe=balanced", "evaluation=quick", "evaluation.repetitions=1", *texts(model))
    assert (row["status"], row["model"], row["format"]) == ("ok", model, "packed")
    assert 0.1 < float(row["size_ratio"]) < 0.25
    assert 0.1 < float(row["sparsity"]) < 0.6
    assert float(row["agreement_low"]) <= float(row["agreement"]) <= float(row["agreement_high"])
    if model in CLASSIFIERS:
        assert float(row["agreement"]) > 0.9
        assert float(row["accuracy"]) > float(row["original_accuracy"]) - 0.1
        assert int(row["examples"]) == 256
    for name in ("latency_ms_p50", "original_latency_ms_p50", "speedup", "peak_memory_mb"):
        assert float(row[name]) > 0, name


@pytest.mark.parametrize("model", CLASSIFIERS)
@pytest.mark.parametrize(
    ("settings", "at_most"),
    [
        (["recipe=packed_fp16"], 0.44),
        (["recipe=pruned", "format=packed"], 0.375),
        (["recipe=balanced"], 0.225),
        (["recipe=balanced", "+stages.prune.roles=[linear,embedding]"], 0.20),
        (["recipe=compact"], 0.13),
    ],
)
def test_packed_artifacts_reach_their_sizes(
    run: Callable[..., dict[str, str]], model: str, settings: list[str], at_most: float
) -> None:
    row = run(model, *settings, "evaluation=none")
    assert at_most / 2 < float(row["size_ratio"]) <= at_most


def test_a_search_beats_the_grid(optimizer: Command, tmp_path: Path) -> None:
    """The smallest artifact that agrees at 0.99: of six trials, against the best of six points of a grid."""
    pytest.importorskip("optuna")
    common = [
        f"model.path={SHARED.resolve() / 'models' / 'bert-intents'}",
        *texts("bert-intents"),
        "evaluation.repetitions=0",
    ]
    grid = ["-m", "recipe=aggressive", "pruning_amount=0.2,0.3,0.5", "threshold=1e-4,1e-3"]
    assert optimizer(*grid, *common, "out=grid", "keep=none")[0] == 0
    assert optimizer("recipe=smallest", "search.trials=6", *common, "out=search", "keep=none")[0] == 0
    best = {}
    for out in ("grid", "search"):
        agreeing = [row for row in rows(tmp_path / out) if float(row["agreement"]) >= 0.99]
        best[out] = min(float(row["size_ratio"]) for row in agreeing)
    assert best["search"] < 0.6 * best["grid"]
