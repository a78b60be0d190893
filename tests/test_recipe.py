"""Recipes: every mistake is refused in one line before anything is read; what is right survives a round trip."""

import math
from typing import Any

import pytest
from omegaconf import OmegaConf

from optimizer.errors import RecipeError
from optimizer.recipe import Recipe, parse
from optimizer.rows.gates import Gates
from optimizer.stages.prune import Prune
from optimizer.yaml import dump

PRUNE = {"amount": 0.3}


def stages(**settings: Any) -> dict[str, Any]:
    return {"stages": settings}


REFUSED: list[tuple[dict[Any, Any], str]] = [
    # unknown keys, at every level
    ({"stagse": {}}, "recipe: unknown key 'stagse'; did you mean 'stages'?"),
    ({7: 1}, "recipe: unknown key '7'; known: name, stages, format, "),
    ({"model": {"paht": "x"}}, "model: unknown key 'paht'; did you mean 'model.path'?"),
    ({"data": {"limti": 1}}, "data: unknown key 'limti'; did you mean 'data.limit'?"),
    ({"evaluation": {"exmaples": 1}}, "evaluation: unknown key 'exmaples'; did you mean 'evaluation.examples'?"),
    ({"gates": {"agrement": 1}}, "gates: unknown key 'agrement'; did you mean 'gates.agreement'?"),
    (stages(prune={"amuont": 0.3}), "stages.prune: unknown key 'amuont'; did you mean 'stages.prune.amount'?"),
    (stages(prune=PRUNE | {"onyl": ["x"]}), "stages.prune: unknown key 'onyl'; did you mean 'stages.prune.only'?"),
    (stages(prune=PRUNE | {"zzz": 1}), "stages.prune: unknown key 'zzz'; known: stage, before, after, only, "),
    # no such place
    (stages(prune=PRUNE | {"before": "cats"}, cast={}), "stages.prune.before: there is no other stage 'cats'; did "),
    (stages(prune=PRUNE | {"after": "prune"}), "stages.prune.after: there is no other stage 'prune'; there are none"),
    (stages(prune=PRUNE | {"after": 1}, cast={}), "stages.prune.after: there is no other stage '1'; known: cast"),
    (stages(prune=PRUNE | {"after": "a", "before": "b"}), "stages.prune: before and after exclude each other"),
    # unknown stages
    (stages(prnue=PRUNE), "stages.prnue: unknown stage 'prnue'; did you mean 'prune'?"),
    (stages(first={"stage": "zzz"}), "stages.first: unknown stage 'zzz'; known: "),
    (stages(first={"stage": ["prune"]}), "stages.first: unknown stage '['prune']'; "),
    # wrong kinds
    ({"stages": ["prune"]}, "stages: expected a mapping of label: settings, found list"),
    (stages(prune=0.3), "stages.prune: expected a mapping of settings, found 0.3; write stages.prune: {}"),
    ({"name": 3}, "name: 3: expected a word; write name=WORD"),
    ({"name": ""}, "name: '': expected a word; write name=WORD"),
    ({"name": "../escape"}, "name: '../escape': expected a word; write name=WORD"),
    ({"name": ".."}, "name: '..': expected a word; write name=WORD"),
    ({"model": "bert"}, "model: expected a mapping of settings, found 'bert'"),
    ({"model": {"path": None}}, "model.path: None: "),
    ({"model": {"path": ""}}, "model.path: '': "),
    ({"also_pt": "yes"}, "also_pt: 'yes': input should be a valid boolean"),
    ({"format": "dens"}, "format: 'dens': unknown format; did you mean 'dense'?"),
    ({"threads": 2.0}, "threads: 2.0: input should be a valid integer"),
    ({"data": {"text": 5}}, "data.text: 5: "),
    ({"data": {"text": ["one"]}}, "data.text: ['one']: write one column, or two columns for pairs of texts"),
    (stages(prune={"amount": "0.3"}), "stages.prune.amount: '0.3': input should be a valid number"),
    (stages(prune=PRUNE | {"only": "*.weight"}), "stages.prune.only: '*.weight': input should be a valid list"),
    (stages(prune=PRUNE | {"roles": ["linaer"]}), "stages.prune.roles.0: 'linaer': input should be 'linear', "),
    # out of range
    (stages(prune={"amount": -0.1}), "stages.prune.amount: -0.1: input should be greater than or equal to 0"),
    (stages(prune={"amount": 1}), "stages.prune.amount: 1: input should be less than or equal to 0.99"),
    (stages(prune={"amount": math.nan}), "stages.prune.amount: nan: "),
    (stages(threshold={"value": -1e-3}), "stages.threshold.value: -0.001: input should be greater than or equal to 0"),
    (stages(threshold={"value": math.inf}), "stages.threshold.value: inf: input should be a finite number"),
    (stages(bitsandbytes={"bits": 2}), "stages.bitsandbytes.bits: 2: input should be 4 or 8"),
    (stages(cast={"dtype": "float32"}), "stages.cast.dtype: 'float32': input should be 'float16' or 'bfloat16'"),
    ({"device": "gpu"}, "device: 'gpu': "),
    ({"device": "cuda:x"}, "device: 'cuda:x': "),
    ({"threads": 0}, "threads: 0: input should be greater than or equal to 1"),
    ({"seed": 2**32}, "seed: 4294967296: input should be less than 4294967296"),
    ({"seed": -1}, "seed: -1: "),
    ({"data": {"limit": 0}}, "data.limit: 0: input should be greater than or equal to 1"),
    ({"evaluation": {"batch_size": 0}}, "evaluation.batch_size: 0: "),
    (
        {"evaluation": {"grid": {"batch_sizes": [1], "lengths": [8], "lenght": 8}}},
        "evaluation.grid: unknown key 'lenght'; did you mean 'evaluation.grid.lengths'?",
    ),
    ({"evaluation": {"grid": {"batch_sizes": [0], "lengths": [8]}}}, "evaluation.grid.batch_sizes.0: 0: input should"),
    ({"evaluation": {"grid": {"batch_sizes": [1], "lengths": []}}}, "evaluation.grid.lengths: []: list should have"),
    ({"evaluation": {"stream": 5, "repetitions": 0}}, "evaluation: grid and stream are timed, which repetitions: 0"),
    ({"gates": {"agreement": 1.1}}, "gates.agreement: 1.1: input should be less than or equal to 1"),
    ({"gates": {"size_ratio": 0}}, "gates.size_ratio: 0: input should be greater than 0"),
    # stages that lack something or do not go together
    (stages(threshold=None), "stages.threshold.value: is required; write stages.threshold.value=VALUE"),
    (stages(prune=None), "stages.prune: amount: is required; write amount: 0.3"),
    (
        stages(prune={"amount": 0.3, "pattern": "2:4"}),
        "stages.prune: pattern: 2:4 already says how much is pruned; remove amount",
    ),
    (
        stages(prune={"scope": "model", "pattern": "2:4"}),
        "stages.prune: pattern: 2:4 is a matter of each tensor; remove scope: model",
    ),
    (
        stages(bitsandbytes={}, prune=PRUNE),
        "stages.prune: prune cannot follow bitsandbytes, which leaves integer codes; write prune before bitsandbytes",
    ),
    (
        stages(bitsandbytes={}, zero={"stage": "threshold", "value": 0.1}),
        "stages.zero: threshold cannot follow bitsandbytes, which leaves integer codes; write zero before bitsandbytes",
    ),
    (
        stages(bitsandbytes={}, four={"stage": "bitsandbytes", "bits": 4}),
        "stages.four: bitsandbytes cannot follow bitsandbytes, which leaves integer codes; write four before ",
    ),
    (stages(cast={}, bitsandbytes={}), "stages.cast: compute: float32 does not hold beside bitsandbytes in "),
    (stages(bitsandbytes={}, cast={}), "stages.cast: compute: float32 does not hold beside bitsandbytes in "),
    # what nobody has said
    (
        {"stages": None},
        "stages: null; to leave the original as it is write recipe=baseline, or stages: {}",
    ),
    (
        {"data": {"path": "texts.csv"}},
        "model: data.path is given and no model; write model.path=DIR, or model.path=demo",
    ),
    ({"data": {"path": "texts.csv"}, "model": {"revision": "main"}}, "model: data.path is given and no model; "),
    # gates that this evaluation cannot judge
    (
        {"gates": {"agreement": 0.9}, "evaluation": {"examples": 0}},
        "gates.agreement: this evaluation does not measure it; write evaluation=full, or ~gates.agreement",
    ),
    ({"gates": {"agreement_low": 0.9}, "evaluation": {"examples": 0}}, "gates.agreement_low: this evaluation "),
    ({"gates": {"accuracy_drop": 0.1}, "evaluation": {"examples": 0}}, "gates.accuracy_drop: this evaluation "),
    ({"gates": {"speedup": 1.0}, "evaluation": {"repetitions": 0}}, "gates.speedup: this evaluation "),
]


@pytest.mark.parametrize(("values", "line"), REFUSED, ids=[line[:60] for _, line in REFUSED])
def test_refused(values: dict[Any, Any], line: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse(values)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "pattern", ["0:4", "4:4", "5:4", "2:", ":4", "2:4:8", "two:four", "", "-2:4", "2.0:4", 0, True, 2.4, None]
)
def test_refused_patterns(pattern: object) -> None:
    with pytest.raises(RecipeError, match=r"^stages\.prune\.pattern: "):
        parse(stages(prune={"pattern": pattern}))


@pytest.mark.parametrize("pattern", ["1:2", "2:4", "4:8"])
def test_a_pattern_may_be_written_without_quotes(pattern: str) -> None:
    """YAML 1.1 reads 2:4 as 2 * 60 + 4."""
    read = OmegaConf.create(f"stages: {{prune: {{pattern: {pattern}}}}}")
    values: Any = OmegaConf.to_container(read)
    assert isinstance(values["stages"]["prune"]["pattern"], int)
    (step,) = parse(values).steps
    assert isinstance(step.stage, Prune)
    assert step.stage.pattern == pattern


FULL: dict[str, Any] = {
    "name": "everything",
    "stages": {
        "first": {"stage": "prune", "pattern": "2:4", "only": ["*.dense.weight"], "roles": ["linear", "embedding"]},
        "prune": {"amount": 0.25, "scope": "model", "skip": ["classifier.*"]},
        "threshold": {"value": 1e-5},
        "bitsandbytes": {"bits": 4, "type": "fp4", "double_quantization": False, "outliers": 0},
        "cast": {"dtype": "bfloat16", "compute": "stored"},
    },
    "format": "dense",
    "also_pt": True,
    "gates": {"agreement": 0.99, "agreement_low": 0.98, "size_ratio": 0.5, "speedup": 0.5, "accuracy_drop": 0.01},
    "model": {"path": "some/model", "revision": "main"},
    "data": {"path": "texts.csv", "text": ["premise", "hypothesis"], "label": "kind", "limit": 10},
    "evaluation": {"examples": 5, "batch_size": 2, "length": 64, "warmup": 0, "repetitions": 1},
    "device": "cuda:1",
    "threads": 3,
    "seed": 2**32 - 1,
}


def through_yaml(values: dict[str, Any]) -> Any:
    return OmegaConf.to_container(OmegaConf.create(dump(values)))


GRID = {"evaluation": {"grid": {"batch_sizes": [1, 8], "lengths": [32]}, "stream": 64}}


@pytest.mark.parametrize(
    "values", [{}, FULL, stages(prune=PRUNE), {"stages": {}}, GRID], ids=["none", "full", "one", "no", "grid"]
)
def test_values_give_the_same_recipe_again(values: dict[str, Any]) -> None:
    recipe = parse(values)
    assert parse(recipe.values()) == recipe
    assert parse(through_yaml(recipe.values())) == recipe
    assert parse(through_yaml(recipe.values())).values() == recipe.values()


def test_what_came_later_and_is_not_asked_for_is_in_no_values() -> None:
    assert {"grid", "stream"} <= set(parse(GRID).values()["evaluation"])
    assert parse({"evaluation": {"grid": None, "stream": 0}}).values() == parse({}).values()
    assert not {"grid", "stream"} & set(parse({}).values()["evaluation"])


def test_what_made_an_artifact_makes_it_again() -> None:
    recipe = parse(FULL)
    again = parse(through_yaml(recipe.made_by()))
    assert (again.name, again.steps, again.output) == (recipe.name, recipe.steps, recipe.output)
    assert again.made_by() == recipe.made_by()
    assert set(recipe.made_by()) == {"name", "stages", "format", "also_pt"}


def test_the_order_is_the_written_one() -> None:
    assert [step.label for step in parse(FULL).steps] == ["first", "prune", "threshold", "bitsandbytes", "cast"]
    turned = parse(stages(threshold={"value": 0.1}, prune=PRUNE))
    assert [step.stage.kind for step in turned.steps] == ["threshold", "prune"]
    assert list(turned.values()["stages"]) == ["threshold", "prune"]


@pytest.mark.parametrize(
    ("place", "order"),
    [
        ({"before": "quantize"}, ["prune", "again", "quantize", "cast"]),
        ({"after": "quantize"}, ["prune", "quantize", "again", "cast"]),
        ({"before": "prune"}, ["again", "prune", "quantize", "cast"]),
        ({"after": "cast", "before": None}, ["prune", "quantize", "cast", "again"]),
    ],
)
def test_a_stage_stands_where_it_says(place: dict[str, Any], order: list[str]) -> None:
    again = {"stage": "threshold", "value": 0.1, "roles": ["norm"]}
    written = stages(prune=PRUNE, quantize={"bits": 8}, cast={}, again=again | place)
    recipe = parse(written)
    assert [step.label for step in recipe.steps] == order
    in_order = written["stages"] | {"again": again}
    assert recipe.values() == parse(stages(**{label: in_order[label] for label in order})).values()


def test_a_stage_may_stand_twice_under_two_labels() -> None:
    recipe = parse(stages(prune=PRUNE, again={"stage": "prune", "amount": 0.5}))
    assert [(step.label, step.stage.kind) for step in recipe.steps] == [("prune", "prune"), ("again", "prune")]


@pytest.mark.parametrize("key", ["format", "also_pt", "gates", "model", "data", "device", "threads", "seed"])
def test_null_means_the_default(key: str) -> None:
    assert parse({key: None}) == parse({})


def test_a_recipe_without_anything() -> None:
    recipe: Recipe = parse({})
    assert recipe.steps == ()
    assert recipe.gates == Gates()
    assert recipe.model.path == "demo"
    assert recipe.environment.threads >= 1


def test_gates_that_need_no_evaluation_stand_without_one() -> None:
    recipe = parse({"gates": {"size_ratio": 0.5}, "evaluation": {"examples": 0, "repetitions": 0}})
    assert recipe.gates.size_ratio == 0.5


def test_bitsandbytes_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"^stages\.bitsandbytes: needs the package bitsandbytes; run: pip install"):
        parse(stages(bitsandbytes={}))
