"""The gates of shipped searches on models of each kind, and gates on figures that a model or its texts have not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import rows

import optimizer as package
from optimizer.errors import OptimizerError, RecipeError
from optimizer.recipe import parse
from optimizer.rows.gates import GATES
from optimizer.runs.plan import plan
from optimizer.search import gating, settings

pytest.importorskip("optuna")

TinyModel = Callable[..., Path]
SEARCHES = ["smallest", "fastest", "best"]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.jsonl"
    animals = ["cat", "dog", "bird", "fish", "cat dog", "dog bird", "bird fish", "fish cat"]
    found = [{"text": f"the {one} sees {other}", "query": other} for one in animals for other in animals]
    path.write_text("".join(f"{json.dumps(each)}\n" for each in found))
    return path


@pytest.fixture
def reranker(tiny_model: TinyModel, tmp_path: Path) -> Path:
    return tiny_model("sequence-classification", tmp_path / "reranker", num_labels=1)


def fitted(recipe: str, model: Path, texts: Path, *more: str) -> tuple[dict[str, Any], list[str]]:
    """The gates with which a shipped search begins, and what it says of them."""
    composed = package.compose(f"recipe={recipe}", f"model.path={model}", f"data.path={texts}", *more)
    said: list[str] = []
    found = gating.fitted(composed, settings(composed), said.append)
    return {gate: bound for gate, bound in found["gates"].items() if bound}, said


@pytest.mark.parametrize("recipe", SEARCHES)
def test_each_kind_of_model_has_a_gate_by_default(
    tiny_model: TinyModel, reranker: Path, texts: Path, recipe: str
) -> None:
    pytest.importorskip("openvino")
    assert fitted(recipe, tiny_model("sequence-classification"), texts) == ({"agreement": 0.99}, [])
    gates, said = fitted(recipe, tiny_model("encoder"), texts)
    assert gates == {"neighbour_agreement": 0.99}
    assert said == ["search: this model has no agreement: its gate is neighbour_agreement 0.99, by search.otherwise"]
    gates, said = fitted(recipe, reranker, texts)
    assert gates == {"spearman": 0.99}
    assert said == ["search: this model has no agreement: its gate is spearman 0.99, by search.otherwise"]


def test_a_gate_on_the_answers_that_is_set_is_the_only_one(tiny_model: TinyModel, texts: Path) -> None:
    more = ("gates.cosine_similarity=0.9", "gates.size_ratio=0.5")
    gates, said = fitted("smallest", tiny_model("encoder"), texts, *more)
    assert gates == {"cosine_similarity": 0.9, "size_ratio": 0.5}
    assert said == [
        "search: this model has no agreement: left out, its gates are size_ratio 0.5 and cosine_similarity 0.9"
    ]


def test_how_gates_are_judged_stays(tiny_model: TinyModel, texts: Path) -> None:
    gates, _ = fitted("smallest", tiny_model("encoder"), texts, "gates.beyond_chance=true")
    assert gates == {"neighbour_agreement": 0.99, "beyond_chance": True}
    gates, _ = fitted(
        "smallest", tiny_model("encoder"), texts, "gates.cosine_similarity=0.9", "gates.beyond_chance=true"
    )
    assert gates == {"cosine_similarity": 0.9, "beyond_chance": True}


def test_gates_that_the_texts_alone_lack_are_refused_as_ever(tiny_model: TinyModel, texts: Path) -> None:
    gates, said = fitted("smallest", tiny_model("sequence-classification"), texts, "gates.accuracy_drop=0.01")
    assert (gates, said) == ({"agreement": 0.99, "accuracy_drop": 0.01}, [])


@pytest.mark.parametrize(
    ("otherwise", "line"),
    [
        ({"neighbor_agreement": 1}, "search.otherwise: unknown key 'neighbor_agreement'; did you mean "),
        ({"beyond_chance": 1}, "search.otherwise: unknown key 'beyond_chance'; "),
        ({"spearman": 3}, "search.otherwise.spearman: 3.0: input should be less than or equal to 1"),
    ],
)
def test_gates_in_place_of_others_are_gates(otherwise: dict[str, Any], line: str) -> None:
    composed = package.compose("recipe=smallest")
    with pytest.raises(RecipeError) as caught:
        settings(composed | {"search": composed["search"] | {"otherwise": otherwise}})
    assert str(caught.value).startswith(line)


def test_a_search_of_an_embedding_model_by_its_neighbours(
    optimizer: Callable[..., tuple[int, str, str]], tiny_model: TinyModel, texts: Path, tmp_path: Path
) -> None:
    asked = (
        "recipe=smallest_steps",
        f"model.path={tiny_model('encoder')}",
        f"data.path={texts}",
        "evaluation.repetitions=0",
    )
    code, out, err = optimizer(*asked, "search.trials=2", "search.otherwise.neighbour_agreement=0.2", "threads=1")
    assert code == 0, err
    assert "its gate is neighbour_agreement 0.2, by search.otherwise" in err
    assert "neighbour agreement" in out.splitlines()[0]
    found = rows(tmp_path / "outputs")
    assert len(found) == 2
    assert all(row["status"] == "ok" and float(row["neighbour_agreement"]) >= 0.2 for row in found)
    assert "front: " in err
    assert "neighbour agreement " in err.partition("front: ")[2].splitlines()[0]


# gates that a model has not


LACKING: dict[str, dict[str, str]] = {
    "encoder": {
        "agreement": "this model decides on no label, so it has no agreement; write ~gates.agreement",
        "max_logit_difference": "this model gives embeddings, no logits; write ~gates.max_logit_difference",
        "spearman": "this model gives no text one score; write ~gates.spearman",
        "gold_spearman": "the texts have no labels for it; write data.label=COLUMN or ~gates.gold_spearman",
        "macro_f1": "this model gives no text a label; write ~gates.macro_f1",
    },
    "reranker": {
        "agreement_low": "this model decides on no label, so it has no agreement; write ~gates.agreement_low",
        "neighbour_agreement": "this model gives no embeddings; write ~gates.neighbour_agreement",
        "first_answer_agreement_low": (
            "the texts are in no groups; write data.group=COLUMN or ~gates.first_answer_agreement_low"
        ),
        "accuracy_drop_high": "this model gives no text one label of several; write ~gates.accuracy_drop_high",
    },
    "sequence-classification": {
        "accuracy_drop": "the texts have no labels for it; write data.label=COLUMN or ~gates.accuracy_drop",
        "gold_spearman": "this model gives neither scores nor embeddings; write ~gates.gold_spearman",
        "entity_f1_drop": "this model labels no tokens; write ~gates.entity_f1_drop",
        "micro_f1": "this model gives no text a set of labels; write ~gates.micro_f1",
        "perplexity_rise": "this model does not go on with texts; write ~gates.perplexity_rise",
        "word_error_rate": "this model does not write what it hears; write ~gates.word_error_rate",
    },
}


@pytest.mark.parametrize(("kind", "gate"), [(kind, gate) for kind, gates in LACKING.items() for gate in gates])
def test_a_gate_that_this_model_has_not_is_refused_before_anything_runs(
    tiny_model: TinyModel, reranker: Path, texts: Path, kind: Any, gate: str
) -> None:
    model = reranker if kind == "reranker" else tiny_model(kind)
    bound = 0.5
    recipe = parse({"model": {"path": str(model)}, "data": {"path": str(texts)}, "gates": {gate: bound}})
    with pytest.raises(RecipeError) as caught:
        plan(recipe)
    assert str(caught.value) == f"gates.{gate}: {LACKING[kind][gate]}"


def test_every_gate_needs_what_is_known() -> None:
    from optimizer.runs.plan import _LACKING

    needed = {need for gate in GATES.values() for need in gate.needs}
    assert needed <= {"examples", "repetitions", *_LACKING}


@pytest.mark.parametrize(
    ("task", "data", "line"),
    [
        (
            "sequence-classification",
            {"pooling": "cls"},
            "data.pooling: is for encoders of text, which this model is not; ",
        ),
        ("encoder", {"tokens": "text"}, "'text' holds \"the cat sees cat\" where a list of words is expected"),
        (
            "encoder",
            {"group": "query"},
            "data.group: nothing of this model on these texts is told by groups; remove it",
        ),
        ("sequence-classification", {"group": "query"}, "data.group: nothing of this model on these texts is told"),
    ],
)
def test_what_is_said_of_the_texts_and_means_nothing_is_refused(
    tiny_model: TinyModel, texts: Path, task: Any, data: dict[str, Any], line: str
) -> None:
    recipe = parse({"model": {"path": str(tiny_model(task))}, "data": {"path": str(texts), **data}})
    with pytest.raises(OptimizerError) as caught:
        plan(recipe)
    assert line in str(caught.value)


def test_how_vectors_are_made_is_part_of_a_runs_id(tiny_model: TinyModel, texts: Path) -> None:
    def run_id(**data: Any) -> str:
        return plan(parse({"model": {"path": str(tiny_model("encoder"))}, "data": {"path": str(texts), **data}})).run_id

    assert len({run_id(), run_id(pooling="cls"), run_id(pooling="mean")}) == 3
    assert run_id() == run_id(pooling=None)


def test_groups_are_part_of_the_texts(reranker: Path, texts: Path) -> None:
    def run_id(**data: Any) -> str:
        return plan(parse({"model": {"path": str(reranker)}, "data": {"path": str(texts), **data}})).run_id

    assert run_id() != run_id(group="query") == run_id(group="query")
