"""What is compared of each kind of model: deployed vectors, orders of scores, words, sets; texts to figures."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import spearmanr
from sklearn.metrics import f1_score
from transformers import (
    AutoModel,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from optimizer.data.labels import gold
from optimizer.data.texts import DataSettings, read
from optimizer.errors import DataError
from optimizer.evaluation import comparison
from optimizer.evaluation.agreement import wilson
from optimizer.evaluation.answers import figures as figures_of_answers
from optimizer.evaluation.job import Environment, EvaluationSettings
from optimizer.evaluation.measure import Job
from optimizer.evaluation.models import sides
from optimizer.model.task import Task

TinyModel = Callable[..., Path]
WORDS = ["the", "a", "cat", "dog", "bird", "fish", "sees", "likes", "finds", "runs", "red", "green", "big", "small"]
TEXTS = [f"the {one} {WORDS[(place * 5 + 3) % 14]} {WORDS[(place * 3) % 11]}" for place, one in enumerate(WORDS)] * 2


def other(original: Path, directory: Path) -> Path:
    """A copy of a model that answers a little otherwise."""
    shutil.copytree(original, directory)
    weights = load_file(directory / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    weights = {name: each + 0.1 * torch.randn(each.shape, generator=generator) for name, each in weights.items()}
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def figures(
    original: Path, artifact: Path, task: Task, rows: Sequence[dict[str, Any]], cache: Path, **data: Any
) -> dict[str, Any]:
    """The figures of comparing two models on rows of data."""
    cache.mkdir(exist_ok=True)
    path = cache / "texts.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    texts = read(DataSettings(path=str(path), **data), is_demo=False)
    settings = EvaluationSettings(repetitions=0, batch_size=4)
    job = Job(
        original,
        artifact,
        "an original",
        task,
        texts.source,
        texts.fingerprint,
        settings,
        Environment(threads=1),
        cache,
    )
    found = job.read_texts()
    return comparison.compare(job, found, *sides(job, found))


@torch.inference_mode()
def states(directory: Path, texts: Sequence[str], length: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    tokenizer = AutoTokenizer.from_pretrained(directory)
    asked = tokenizer(list(texts), padding=True, truncation=True, max_length=length, return_tensors="pt")
    return AutoModel.from_pretrained(directory).eval()(**asked).last_hidden_state, asked["attention_mask"]


def same_nearest(original: torch.Tensor, artifact: torch.Tensor) -> float:
    nearest = []
    for vectors in (original, artifact):
        unit = torch.nn.functional.normalize(vectors.double(), dim=1)
        nearest.append((unit @ unit.T).fill_diagonal_(-2).argmax(1))
    return (nearest[0] == nearest[1]).double().mean().item()


def test_the_vectors_of_an_embedding_model_are_those_it_deploys(tiny_model: TinyModel, tmp_path: Path) -> None:
    original = tiny_model("encoder", tmp_path / "original")
    entries = [
        {"path": path, "type": f"sentence_transformers.models.{kind}"}
        for path, kind in (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense"), ("", "Normalize"))
    ]
    (original / "modules.json").write_text(json.dumps(entries))
    (original / "sentence_bert_config.json").write_text('{"max_seq_length": 6}')
    prompts = {"prompts": {"query": "a big "}, "default_prompt_name": "query"}
    (original / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    for folder in ("1_Pooling", "2_Dense"):
        (original / folder).mkdir()
    (original / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    (original / "2_Dense" / "config.json").write_text('{"activation_function": "torch.nn.modules.activation.Tanh"}')
    weight = torch.randn(8, 32, generator=torch.Generator().manual_seed(1))
    save_file({"linear.weight": weight, "linear.bias": torch.ones(8)}, original / "2_Dense" / "model.safetensors")
    artifact = other(original, tmp_path / "artifact")
    asked = [*TEXTS, "the cat sees a bird", "the cat runs", "the dog"]
    found = figures(original, artifact, "encoder", [{"text": text} for text in asked], tmp_path / "cache")

    texts = [f"a big {text}" for text in asked]
    before, after = (torch.tanh(states(place, texts, 6)[0][:, 0] @ weight.T + 1) for place in (original, artifact))
    assert found["examples"] == len(asked)
    assert found["cosine_similarity"] == pytest.approx(
        torch.nn.functional.cosine_similarity(before, after).mean().item(), abs=1e-6
    )
    # What is read alike, cut at six tokens, is one text.
    ids = AutoTokenizer.from_pretrained(original)(texts, truncation=True, max_length=6)["input_ids"]
    distinct = sorted({tuple(each): place for place, each in reversed(list(enumerate(ids)))}.values())
    assert len(distinct) == 14 < len(set(texts))
    assert found["neighbour_agreement"] == pytest.approx(same_nearest(before[distinct], after[distinct]))
    assert found["texts_cut"] == len(asked) - 1


@pytest.mark.parametrize("pooling", [None, "mean", "cls"])
def test_a_plain_encoder_is_pooled_as_the_data_says(tiny_model: TinyModel, tmp_path: Path, pooling: str | None) -> None:
    original = tiny_model("encoder")
    artifact = other(original, tmp_path / "artifact")
    rows = [{"text": text} for text in TEXTS]
    found = figures(original, artifact, "encoder", rows, tmp_path / "cache", pooling=pooling)
    vectors = []
    for place in (original, artifact):
        values, mask = states(place, TEXTS)
        weights = mask.unsqueeze(-1).float()
        vectors.append(values[:, 0] if pooling == "cls" else (values * weights).sum(1) / weights.sum(1))
    expected = torch.nn.functional.cosine_similarity(*vectors)
    assert found["cosine_similarity"] == pytest.approx(expected.mean().item(), abs=1e-6)
    assert found["cosine_similarity_p1"] == pytest.approx(expected.double().quantile(0.01).item(), abs=1e-6)
    assert found["neighbour_agreement"] == pytest.approx(same_nearest(*(each[:14] for each in vectors)))


def test_the_originals_vectors_are_kept_for_one_way_of_pooling_alone(tiny_model: TinyModel, tmp_path: Path) -> None:
    original = tiny_model("encoder")
    artifact, rows = other(original, tmp_path / "artifact"), [{"text": text} for text in TEXTS]
    first, again, cls = (
        figures(original, artifact, "encoder", rows, tmp_path / "cache", pooling=pooling)["cosine_similarity"]
        for pooling in ("mean", "mean", "cls")
    )
    assert first == again != cls


def test_pairs_with_scores_are_compared_with_people(tiny_model: TinyModel, tmp_path: Path) -> None:
    original = tiny_model("encoder")
    artifact = other(original, tmp_path / "artifact")
    scores = [float(place % 5) + 0.5 for place in range(12)]
    rows = [{"one": TEXTS[place], "two": TEXTS[place + 2], "score": scores[place]} for place in range(12)]
    columns: dict[str, Any] = {"text": ["one", "two"], "label": "score"}
    found = figures(original, artifact, "encoder", rows, tmp_path / "cache", **columns)
    assert found["examples"] == 24
    for prefix, place in (("", artifact), ("original_", original)):
        vectors = []
        for column in ("one", "two"):
            values, mask = states(place, [row[column] for row in rows])
            vectors.append((values * mask.unsqueeze(-1)).sum(1))
        cosines = torch.nn.functional.cosine_similarity(*vectors)
        assert found[f"{prefix}gold_spearman"] == pytest.approx(spearmanr(scores, cosines).statistic, abs=1e-6)


def test_a_reranker_keeps_its_order_and_its_first_answers(tiny_model: TinyModel, tmp_path: Path) -> None:
    original = tiny_model("sequence-classification", tmp_path / "original", num_labels=1)
    artifact = other(original, tmp_path / "artifact")
    rows = [
        {"ask": TEXTS[place // 4], "answer": TEXTS[place], "query": place // 4, "label": place % 3}
        for place in range(14)
    ]
    columns: dict[str, Any] = {"text": ["ask", "answer"], "group": "query"}
    found = figures(original, artifact, "sequence-classification", rows, tmp_path / "cache", **columns)
    scores = []
    for place in (original, artifact):
        tokenizer, model = (
            AutoTokenizer.from_pretrained(place),
            AutoModelForSequenceClassification.from_pretrained(place),
        )
        asked = tokenizer(
            *([row[column] for row in rows] for column in ("ask", "answer")), padding=True, return_tensors="pt"
        )
        scores.append(model.eval()(**asked).logits.detach().flatten())
    before, after = scores
    assert found["spearman"] == pytest.approx(spearmanr(before, after).statistic)
    assert found["max_logit_difference"] == pytest.approx((before - after).abs().max().item(), abs=1e-5)
    same = sum(int(before[at : at + 4].argmax() == after[at : at + 4].argmax()) for at in range(0, 14, 4))
    assert found["first_answer_agreement"] == same / 4
    assert found["first_answer_agreement_low"] == wilson(same, 4)[0]
    assert found["original_gold_spearman"] == pytest.approx(spearmanr([row["label"] for row in rows], before).statistic)


def test_words_count_by_their_first_token_and_special_tokens_not_at_all(tiny_model: TinyModel, tmp_path: Path) -> None:
    names = {0: "O", 1: "B-PET", 2: "I-PET"}
    original = tiny_model("token-classification", tmp_path / "original", id2label=names)
    artifact = other(original, tmp_path / "artifact")
    rows = [
        {"words": text.split(), "tags": [list(names.values())[len(word) % 3] for word in text.split()]}
        for text in TEXTS
    ]
    columns: dict[str, Any] = {"tokens": "words", "label": "tags"}
    found = figures(original, artifact, "token-classification", rows, tmp_path / "cache", **columns)
    said = []
    for place in (original, artifact):
        tokenizer, model = AutoTokenizer.from_pretrained(place), AutoModelForTokenClassification.from_pretrained(place)
        asked = tokenizer(TEXTS, padding=True, return_tensors="pt")
        answers = model.eval()(**asked).logits.argmax(-1)
        # One token a word here: what is between [CLS] and [SEP].
        said.append(
            [row[1 : int(mask.sum()) - 1].tolist() for row, mask in zip(answers, asked["attention_mask"], strict=True)]
        )
    pairs = [(one, two) for before, after in zip(*said, strict=True) for one, two in zip(before, after, strict=True)]
    assert (found["counted"], found["examples"]) == ("words", len(pairs))
    assert found["agreement"] == pytest.approx(sum(one == two for one, two in pairs) / len(pairs))
    alike = sum(before == after for before, after in zip(*said, strict=True))
    assert found["sentence_agreement"] == pytest.approx(alike / len(TEXTS))
    assert 0 <= found["entity_f1"] <= 1
    assert found["entity_f1"] != found["original_entity_f1"]
    right = [[names[tag] for tag in tags] for tags in said[0]]
    rows = [{"words": row["words"], "tags": tags} for row, tags in zip(rows, right, strict=True)]
    again = figures(original, artifact, "token-classification", rows, tmp_path / "cache", **columns)
    assert again["original_entity_f1"] == 1


def test_a_word_of_several_tokens_is_one(tiny_model: TinyModel, tmp_path: Path) -> None:
    original = tiny_model("token-classification")
    rows = [{"words": ["the", "cat.", "runs"]}, {"words": ["bird"]}]  # the tokenizer makes two of the second
    found = figures(original, original, "token-classification", rows, tmp_path / "cache", tokens="words")
    assert (found["examples"], found["agreement"], found["sentence_agreement"]) == (4, 1, 1)


def test_sets_of_labels(tiny_model: TinyModel, tmp_path: Path) -> None:
    names = {0: "pets", 1: "food", 2: "news"}
    problem = {"problem_type": "multi_label_classification", "id2label": names}
    original = tiny_model("sequence-classification", tmp_path / "original", **problem)
    artifact = other(original, tmp_path / "artifact")
    labels = [[name for place, name in names.items() if (at + place) % 2] for at in range(len(TEXTS))]
    rows = [{"text": text, "label": each} for text, each in zip(TEXTS, labels, strict=True)]
    found = figures(original, artifact, "sequence-classification", rows, tmp_path / "cache")
    right = [[name in each for name in names.values()] for each in labels]
    for prefix, place in (("", artifact), ("original_", original)):
        tokenizer, model = (
            AutoTokenizer.from_pretrained(place),
            AutoModelForSequenceClassification.from_pretrained(place),
        )
        said = model.eval()(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits > 0
        for average in ("macro", "micro"):
            expected = f1_score(right, said.int().numpy(), average=average, zero_division=0)
            assert found[f"{prefix}{average}_f1"] == pytest.approx(expected)
    assert "accuracy" not in found


def test_texts_in_groups_are_resampled_by_group(tiny_model: TinyModel, tmp_path: Path) -> None:
    original = tiny_model("sequence-classification")
    artifact = other(original, tmp_path / "artifact")
    rows = [{"text": text, "label": place % 3, "who": place // 7} for place, text in enumerate(TEXTS)]
    alone = figures(original, artifact, "sequence-classification", rows, tmp_path / "cache")
    together = figures(original, artifact, "sequence-classification", rows, tmp_path / "cache", group="who")
    assert alone["accuracy"] == together["accuracy"]
    assert "mcnemar_p" in alone
    assert "mcnemar_p" not in together
    drop = alone["original_accuracy"] - alone["accuracy"]
    for each in (alone, together):
        assert each["accuracy_drop_low"] <= drop <= each["accuracy_drop_high"]


# what labels mean


def labelled(tmp_path: Path, rows: Sequence[dict[str, Any]], config: dict[str, Any], **data: Any) -> Any:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return gold(read(DataSettings(path=str(path), **data), is_demo=False), config)


TAGGER = {"architectures": ["BertForTokenClassification"], "id2label": {"0": "O", "1": "B-X"}}
SCORER = {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "LABEL_0"}}


@pytest.mark.parametrize(
    ("row", "config", "data", "line"),
    [
        ({"w": ["a", "b"], "label": ["O"]}, TAGGER, {"tokens": "w"}, "text 1 has 2 words and 1 labels"),
        ({"w": ["a"], "label": ["B-Y"]}, TAGGER, {"tokens": "w"}, "the model does not know 'B-Y'; it knows 'O', 'B-X'"),
        ({"text": "a", "label": ["O"]}, TAGGER, {}, "has labels of words but no words; write data.tokens=COLUMN"),
        ({"w": "a b"}, TAGGER, {"tokens": "w"}, "'w' holds \"a b\" where a list of words is expected"),
        ({"w": []}, TAGGER, {"tokens": "w"}, "'w' holds [] where a list of words is expected"),
        ({"text": "a"}, TAGGER, {"tokens": "words"}, "has no column 'words' (columns: text); write data.tokens=COLUMN"),
        ({"text": "a"}, SCORER, {"group": "q"}, "has no column 'q' (columns: text); write data.group=COLUMN"),
        ({"text": "a", "q": 1.5}, SCORER, {"group": "q"}, "'q' holds 1.5 where a word or a whole number is expected"),
    ],
)
def test_labels_and_columns_that_do_not_fit_are_refused(
    tmp_path: Path, row: dict[str, Any], config: dict[str, Any], data: dict[str, Any], line: str
) -> None:
    with pytest.raises(DataError) as caught:
        labelled(tmp_path, [row], config, **data)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_scores_are_numbers_in_whatever_form(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"text": "a", "label": "3.5"},
        {"text": "b", "label": 1},
        {"text": "c", "label": 0.25},
    ]
    assert labelled(tmp_path, rows, SCORER).scores == (3.5, 1, 0.25)
    assert labelled(tmp_path, [*rows, {"text": "d", "label": "good"}], SCORER) is None


def test_tags_are_names_or_numbers(tmp_path: Path) -> None:
    rows = [{"w": ["a", "b"], "label": ["O", "B-X"]}, {"w": ["c"], "label": [1]}]
    assert labelled(tmp_path, rows, TAGGER, tokens="w").tags == (("O", "B-X"), ("B-X",))


def test_answers_to_questions_are_texts(tiny_model: TinyModel, tmp_path: Path) -> None:
    from optimizer.engines.spans import best_span

    original = tiny_model("question-answering")
    artifact = other(original, tmp_path / "artifact")
    asked = [("the cat", text) for text in TEXTS[:12]]
    said = []
    for place in (original, artifact):
        tokenizer, model = AutoTokenizer.from_pretrained(place), AutoModelForQuestionAnswering.from_pretrained(place)
        model.eval()
        found = []
        for question, context in asked:
            encoded = tokenizer(question, context, return_tensors="pt", return_offsets_mapping=True)
            places = zip(encoded.pop("offset_mapping")[0].tolist(), encoded.sequence_ids(0), strict=True)
            offsets = [tuple(ends) if part == 1 else None for ends, part in places]
            logits = model(**encoded)
            found.append(best_span(logits.start_logits[0], logits.end_logits[0], offsets, context)["answer"])
        said.append(found)
    assert said[0] != said[1]
    rows: list[dict[str, Any]] = [
        {"question": question, "context": context, "label": [answer, "never"]}
        for (question, context), answer in zip(asked, said[0], strict=True)
    ]
    rows[0]["label"] = {"text": [said[0][0]], "answer_start": [0]}
    columns: dict[str, Any] = {"text": ["question", "context"]}
    found = figures(original, artifact, "question-answering", rows, tmp_path / "cache", **columns)
    assert (found["original_exact_match"], found["original_answer_f1"]) == (1, 1)
    expected = figures_of_answers(said[0], said[1], [[answer, "never"] for answer in said[0]])
    assert found["exact_match"] == pytest.approx(expected["exact_match"])
    assert found["exact_match"] < 1
    assert found["answer_f1"] == pytest.approx(expected["answer_f1"])
