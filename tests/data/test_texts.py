"""Reading texts and labels: every format, every fault in one line."""

import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from optimizer.data.labels import check_labels
from optimizer.data.texts import DataSettings, Texts, read
from optimizer.errors import DataError

ROWS = [{"text": "hello, you", "label": "yes", "more": 1}, {"text": "grüß\ndich", "label": "no", "more": 2}]
CLASSIFIER = {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "no", "1": "yes", "2": "5"}}


COLUMNS = [".jsonl", ".json", ".csv", ".tsv", ".parquet"]
GZIPPED = [".jsonl.gz", ".json.gz", ".csv.gz", ".TSV.GZ"]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix.lower() == ".gz":
        path.write_bytes(gzip.compress(write(path.with_suffix(""), rows).read_bytes()))
        path.with_suffix("").unlink()
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n", encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    elif path.suffix.lower() in (".csv", ".tsv"):
        import csv

        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="," if path.suffix == ".csv" else "\t")
            writer.writeheader()
            writer.writerows(rows)
    else:
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def texts(path: Path | str, **settings: Any) -> Texts:
    return read(DataSettings(path=str(path), **settings), is_demo=False)


def refusal(path: Path | str, **settings: Any) -> str:
    with pytest.raises(DataError) as caught:
        texts(path, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("suffix", [*COLUMNS, *GZIPPED])
def test_every_format_gives_the_same_texts(suffix: str, tmp_path: Path) -> None:
    found = texts(write(tmp_path / f"some{suffix}", ROWS))
    assert found.texts == ("hello, you", "grüß\ndich")
    assert found.labels == ("yes", "no")
    assert found.name == f"some{suffix}"
    assert found.fingerprint == texts(write(tmp_path / "other.jsonl", ROWS)).fingerprint


def test_txt_is_one_text_a_line(tmp_path: Path) -> None:
    path = tmp_path / "some.txt"
    path.write_text("\ufefffirst \n\n  \nsecond", encoding="utf-8")
    assert texts(path).texts == ("first", "second")
    assert texts(path).labels is None


def test_the_fingerprint_follows_the_content_alone(tmp_path: Path) -> None:
    whole = texts(write(tmp_path / "a.jsonl", ROWS))
    assert texts(write(tmp_path / "b.jsonl", ROWS)).fingerprint == whole.fingerprint
    assert texts(write(tmp_path / "c.jsonl", ROWS[::-1])).fingerprint != whole.fingerprint
    assert texts(write(tmp_path / "a.jsonl", ROWS), limit=1).fingerprint != whole.fingerprint
    assert texts(write(tmp_path / "a.jsonl", ROWS), label="").fingerprint != whole.fingerprint


def test_a_limit_keeps_the_first(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [*ROWS, {"nothing": "of use"}])
    assert texts(path, limit=2).texts == ("hello, you", "grüß\ndich")


@pytest.mark.parametrize("suffix", COLUMNS)
def test_two_columns_are_pairs(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"a{suffix}", [{"q": "who?", "c": "the cat"}])
    assert texts(path, text=["q", "c"]).texts == (("who?", "the cat"),)


@pytest.mark.parametrize("suffix", COLUMNS)
def test_no_label_column_or_an_empty_one_is_no_labels(suffix: str, tmp_path: Path) -> None:
    assert texts(write(tmp_path / f"a{suffix}", [{"text": "x"}])).labels is None
    assert texts(write(tmp_path / f"b{suffix}", [{"text": "x", "label": None}])).labels is None


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_a_column_of_labels_that_was_named_must_be_there(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"a{suffix}", [{"text": "x", "intents": "yes"}, {"text": "y", "intents": None}])
    assert refusal(path, label="intent") == (
        f"{path}: has no column 'intent' (columns: text, intents); write data.label=COLUMN, or data.label='' to go "
        "without; did you mean 'intents'?"
    )
    assert texts(write(tmp_path / f"b{suffix}", [{"text": "x", "intent": None}]), label="intent").labels is None
    assert "has no column 'intent' (columns: text)" in refusal("builtin", label="intent")


@pytest.mark.parametrize("suffix", COLUMNS)
def test_labels_missing_here_and_there_are_refused(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"a{suffix}", [{"text": "x", "label": "yes"}, {"text": "y", "label": None}])
    message = refusal(path)
    assert "has no 'label' while other rows have one" in message
    places = {".jsonl": ":2", ".json": ": object 2", ".csv": ":3", ".tsv": ":3", ".parquet": ": row 2"}
    assert message.startswith(f"{path}{places[suffix]}: has no 'label'")


@pytest.mark.parametrize("label", [True, [True], [["a"]], [1.5], {"a": 1}])
def test_a_label_that_is_neither_word_nor_number_is_refused(label: object, tmp_path: Path) -> None:
    message = refusal(write(tmp_path / "a.jsonl", [{"text": "x", "label": label}]))
    assert f":1: 'label' holds {json.dumps(label)}" in message


def test_words_that_pandas_would_take_for_missing_are_texts(tmp_path: Path) -> None:
    assert texts(write(tmp_path / "a.csv", [{"text": "NA"}, {"text": "null"}, {"text": "1"}])).texts == (
        "NA",
        "null",
        "1",
    )


def test_an_empty_text_is_a_text(tmp_path: Path) -> None:
    for suffix in (".jsonl", ".csv", ".parquet"):
        assert texts(write(tmp_path / f"a{suffix}", [{"text": "", "n": 1}])).texts == ("",)


def test_a_missing_file_is_refused_with_near_names(tmp_path: Path) -> None:
    write(tmp_path / "test-set.jsonl", ROWS)
    (tmp_path / "test_set.py").touch()
    message = refusal(tmp_path / "test_set.jsonl")
    assert "does not exist; did you mean 'test-set.jsonl'?" in message
    assert "test_set.py'" not in message
    assert "known: test-set.jsonl" in refusal(tmp_path / "quite-another.csv")
    (tmp_path / "empty").mkdir()
    assert refusal(tmp_path / "empty" / "a.csv").endswith("does not exist; there are no texts beside it")
    assert "nor does" in refusal(tmp_path / "no" / "where.csv")
    assert "is a directory" in refusal(tmp_path)


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.xml").touch()
    known = "known: .jsonl, .json, .csv, .tsv, .txt, each also with .gz, and .parquet"
    assert refusal(tmp_path / "a.xml") == f"data.path: 'a.xml' has an unknown suffix; {known}"
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet.gz")
    assert refusal(tmp_path / "a.parquet.gz").endswith(f"has an unknown suffix; {known}")


@pytest.mark.parametrize("suffix", COLUMNS)
def test_a_missing_column_is_refused_with_those_there_are(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"a{suffix}", [{"texts": "x", "kind": "y"}])
    assert "has no column 'text' (columns: texts, kind)" in refusal(path)
    assert "did you mean 'texts'?" in refusal(path)
    assert "has no column 'context'" in refusal(path, text=["texts", "context"])


def test_a_line_that_is_not_json_is_refused_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "x"}\n\n{"text": \n')
    assert f"{path}:3: is not JSON" in refusal(path)
    path.write_text('["x"]\n')
    assert ":1: expected an object" in refusal(path)


@pytest.mark.parametrize(("value", "shown"), [(3, "3"), (None, "null"), (["x" * 99], '["xxx')])
def test_a_text_that_is_none_is_refused(value: object, shown: str, tmp_path: Path) -> None:
    message = refusal(write(tmp_path / "a.jsonl", [{"text": "x"}, {"text": value}]))
    assert f":2: 'text' holds {shown}" in message
    assert len(message) < len(str(tmp_path)) + 120


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.txt"])
def test_an_empty_file_and_one_that_is_not_utf8_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"")
    assert refusal(path).endswith("holds no texts")
    path.write_bytes("text\n'grüß'\n".encode("latin-1"))
    assert "is not UTF-8" in refusal(path)


def test_a_header_without_rows_holds_no_texts(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\n")
    assert refusal(tmp_path / "a.csv").endswith("holds no texts")


def test_a_csv_row_with_too_many_or_too_few_fields_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("label,text\nyes,hello, you\n")
    assert f"{path}:2: has more fields than the header" in refusal(path)
    path.write_text("label,text\nyes\n")
    assert ":2: 'text' holds null" in refusal(path)
    path.write_text('text\n"never closed\n')
    assert f"{path}:2: " in refusal(path)


def test_parquet_that_is_damaged_or_cannot_be_read_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 and nothing else")
    assert "is not a parquet file that can be read" in refusal(path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install 'transformer-optimizer[parquet]'" in refusal(path)


def test_a_json_file_is_a_list_of_objects(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"data": []}')
    assert refusal(path) == f'{path}: expected a list of objects, [{{"text": …}}, …], found dict'
    path.write_text('[{"text": "x"}, "y"]')
    assert refusal(path).startswith(f"{path}: object 2: expected an object")
    path.write_text('{"text": "x"}\n{"text": "y"}\n')
    assert refusal(path) == (
        f"{path}:2: is not JSON (Extra data at column 1); a file with an object in each line is called .jsonl"
    )


def test_a_tsv_row_with_too_many_fields_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("label\ttext\nyes\thello, you\nno\tbye\tnow\n")
    assert refusal(path) == f"{path}:3: has more fields than the header; quote fields that hold tabs"


@pytest.mark.parametrize("damage", [lambda data: data[:-12], lambda data: b"{}", lambda data: data[:20] + data[30:]])
def test_a_damaged_gzip_file_is_refused(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl.gz", [{"text": str(number)} for number in range(1000)])
    path.write_bytes(damage(path.read_bytes()))
    assert refusal(path).startswith(f"{path}: is no whole gzip file (")
    assert refusal(path).endswith("); make it again")


def test_a_pattern_is_all_its_files_by_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep").mkdir()
    write(tmp_path / "deep" / "c.csv.gz", [{"text": "third"}])
    write(tmp_path / "b.jsonl", [{"text": "second"}])
    write(tmp_path / "a.jsonl", [{"text": "first"}])
    (tmp_path / "z.txt").write_text("last\n")
    everything = texts(tmp_path / "**" / "*.*")
    assert everything.texts == ("first", "second", "third", "last")
    assert texts(tmp_path / "*.jsonl").texts == ("first", "second")
    assert texts(tmp_path / "*.jsonl").name == "*.jsonl"
    assert texts(tmp_path / "**" / "*.*", limit=3).texts == ("first", "second", "third")
    monkeypatch.chdir(tmp_path)
    source = texts("[ab].jsonl").source
    monkeypatch.chdir("/")
    assert read(source, is_demo=False).texts == ("first", "second")


def test_a_pattern_that_matches_nothing_or_what_cannot_be_read(tmp_path: Path) -> None:
    assert refusal(tmp_path / "*.jsonl").startswith(f"data.path: '{tmp_path / '*.jsonl'}' matches no file; ")
    (tmp_path / "a.xml").touch()
    assert "'a.xml' has an unknown suffix" in refusal(tmp_path / "*")


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    write(tmp_path / "a[1].jsonl", [{"text": "one"}])
    write(tmp_path / "a1.jsonl", [{"text": "other"}])
    assert texts(tmp_path / "a[1].jsonl").texts == ("one",)


def test_what_is_said_of_a_dataset_is_refused_for_files(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROWS)
    for name in ("split", "config", "calibration_split"):
        assert refusal(path, **{name: "test"}) == (
            f"data.{name}: is for a dataset of the hub, and these are other texts; leave it out"
        )
        assert refusal("builtin", **{name: "test"}).startswith(f"data.{name}: ")
    assert refusal(path, split="test", calibration="team/tickets").startswith("data.split: ")


def test_settings_that_came_later_are_in_a_recipe_only_where_they_are_set() -> None:
    assert set(DataSettings().values()) == {"path", "text", "label", "limit", "calibration"}
    assert DataSettings(split="test").values()["split"] == "test"


def test_pairs_need_columns(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    assert "no columns for pairs" in refusal(tmp_path / "a.txt", text=["a", "b"])


def test_auto_is_the_demos_test_set_for_the_demo_and_builtin_otherwise() -> None:
    assert read(DataSettings(), is_demo=True).name == "demo"
    assert read(DataSettings(), is_demo=True).labels is not None
    assert read(DataSettings(), is_demo=False).name == "builtin"
    assert texts("builtin").labels is None
    assert texts("demo") == read(DataSettings(), is_demo=True)


def labelled(*labels: str | int) -> Texts:
    return Texts(("x",) * len(labels), labels, "a.jsonl", "", DataSettings())


def test_labels_are_matched_by_name_then_as_numbers() -> None:
    assert check_labels(labelled("yes", "no", "5", 5, "0", 1), CLASSIFIER) == (1, 0, 2, 2, 0, 1)


def test_labels_are_also_known_by_label2id() -> None:
    assert check_labels(labelled("ja"), CLASSIFIER | {"label2id": {"ja": 1}}) == (1,)


def test_a_classifier_that_names_no_labels_has_two() -> None:
    config = {"architectures": CLASSIFIER["architectures"]}
    assert check_labels(labelled("LABEL_1", 0), config) == (1, 0)
    assert check_labels(labelled(2), config | {"num_labels": 3}) == (2,)
    with pytest.raises(DataError, match="does not know '2'; it knows 'LABEL_0', 'LABEL_1'"):
        check_labels(labelled(2), config)


def test_unknown_labels_are_refused_a_few_by_name() -> None:
    with pytest.raises(DataError) as caught:
        check_labels(labelled("yes", "a", "b", "a", "c", "d", -1, 3), CLASSIFIER)
    message = str(caught.value)
    assert message.startswith("a.jsonl: the model does not know 'a', 'b', 'c' and 3 more; it knows 'no', 'yes', '5'")


@pytest.mark.parametrize(
    "changes",
    [
        {"problem_type": "regression"},
        {"problem_type": "multi_label_classification"},
        {"id2label": {"0": "score"}},
        {"architectures": ["BertForTokenClassification"]},
        {"architectures": ["BertForMaskedLM"]},
    ],
)
def test_models_without_one_label_for_each_text_take_none(changes: dict[str, Any]) -> None:
    assert check_labels(labelled("whatever"), CLASSIFIER | changes) is None


def test_texts_without_labels_have_no_ids() -> None:
    assert check_labels(Texts(("x",), None, "a.txt", "", DataSettings()), CLASSIFIER) is None
