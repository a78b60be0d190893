"""Between two results: what changed for the worse, which texts, and when a build fails of it."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from report_rows import failed, sized, store

import optimizer
from optimizer.errors import ArtifactError, RecipeError
from optimizer.report.between import diff
from optimizer.report.pairs import pair, recipe_of
from optimizer.rows import store as files
from optimizer.rows.allowances import Allowance, parse
from optimizer.rows.changes import Change, write_changes
from optimizer.rows.found import Result, find
from optimizer.rows.parsed import rows_of
from optimizer.rows.row import COLUMNS, Row
from optimizer.rows.store import run_directory

SOURCE = {"original_fingerprint": "o", "data_fingerprint": "d"}


def stored(out: Path, run_id: str, ratio: float = 0.2, agreement: float = 0.98, **figures: Any) -> Path:
    """The folder of a run, its recipe with it."""
    recipe = {"name": "balanced", "stages": {"prune": {"stage": "prune", "amount": ratio}}}
    store(out, sized(run_id, ratio, agreement, **SOURCE | figures), **recipe)
    return run_directory(out, run_id)


def changed(folder: Path, **answers: tuple[str, float]) -> None:
    """Changes of texts t3, t7, …: what the artifact says, and how sure the original was of `refund`."""
    common = {"original": "refund", "artifact_margin": 0.25}
    write_changes(
        folder,
        [
            Change(position=int(name[1:]), artifact=said, original_margin=sure, **common)
            for name, (said, sure) in answers.items()
        ],
    )


def test_what_got_larger_slower_and_less_alike_is_one_line(tmp_path: Path) -> None:
    first = stored(tmp_path / "a", "one-1", 0.2, 0.98, speedup=2.0, speedup_low=1.9, speedup_high=2.1)
    second = stored(tmp_path / "b", "two-2", 0.3, 0.9, speedup=1.0, speedup_low=0.95, speedup_high=1.05)
    found = diff(first, second)
    assert found.missed == []
    assert "larger (0.60 MB to 0.90 MB); slower (2.00x to 1.00x); less alike (0.9800 to 0.9000)" in found.markdown
    assert found.markdown.startswith("### one-1 → two-2\n")
    assert r"| size\_ratio | 20.0% | 30.0% | +0.1000 | worse |" in found.markdown
    assert r"| artifact\_bytes | 0.60 MB | 0.90 MB | +50.0% | worse |" in found.markdown
    assert "| stages.prune.amount | 0.2 | 0.3 |" in found.markdown
    back = diff(second, first).markdown
    assert "smaller (0.90 MB to 0.60 MB); faster (1.00x to 2.00x); more alike (0.9000 to 0.9800)" in back
    assert r"| size\_ratio | 30.0% | 20.0% | -0.1000 | better |" in back


def test_what_chance_may_have_done_is_called_that(tmp_path: Path) -> None:
    first, second = stored(tmp_path / "a", "one-1", 0.2, 0.98), stored(tmp_path / "b", "two-2", 0.2, 0.97)
    text = diff(first, second).markdown
    assert "as large as before (0.60 MB to 0.60 MB); as fast as before (2.00x to 2.00x); no less" in text
    assert "no less alike beyond chance (0.9800 to 0.9700)" in text
    assert "| agreement | 0.9800 | 0.9700 | -0.0100 | within chance |" in text
    assert "size_ratio" not in text.replace("\\", "")


def test_results_that_do_not_compare_are_told_so(tmp_path: Path) -> None:
    first = stored(tmp_path / "a", "one-1")
    second = stored(tmp_path / "b", "two-2", threads=8, original_fingerprint="p", data_fingerprint="e")
    changed(first, t1=("cancel", 0.5))
    changed(second)
    text = diff(first, second).markdown
    for line in ("different originals", "different texts: how alike", "different machines or threads: latencies"):
        assert line in text
    assert "answered" not in text


def test_texts_that_are_answered_differently_come_by_how_sure_the_original_was(tmp_path: Path) -> None:
    first, second = stored(tmp_path / "a", "one-1"), stored(tmp_path / "b", "two-2", 0.3)
    changed(first, t1=("cancel", 0.1), t2=("cancel", 0.2), t3=("cancel", 0.3))
    changed(second, t2=("cancel", 0.2), t3=("ship|ping", 0.3), t4=("ship|ping", 0.9))
    text = diff(first, second).markdown
    counts = "1 as the original by the first alone; 1 as the original by the second alone; 1 by neither."
    assert f"3 texts are answered differently: {counts}" in text
    assert text.splitlines()[-3:] == [
        r"| 4 | refund | 0.9000 | refund |  | ship\|ping | 0.2500 |",
        r"| 3 | refund | 0.3000 | cancel | 0.2500 | ship\|ping | 0.2500 |",
        "| 1 | refund | 0.1000 | cancel | 0.2500 | refund |  |",
    ]
    changed(second, t1=("cancel", 0.1), t2=("cancel", 0.2), t3=("cancel", 0.3))
    assert "Every text is answered alike by both." in diff(first, second).markdown


def test_twenty_texts_are_shown_at_most(tmp_path: Path) -> None:
    first, second = stored(tmp_path / "a", "one-1"), stored(tmp_path / "b", "two-2")
    changed(first)
    changed(second, **{f"t{number}": ("cancel", number / 100) for number in range(30)})
    text = diff(first, second).markdown
    assert "30 texts are answered differently: 30 as the original by the first alone. The 20 of which" in text
    assert text.count("| cancel | 0.2500 |") == 20
    assert "| 29 | refund | 0.2900 | refund |  | cancel | 0.2500 |" in text


@pytest.mark.parametrize(
    ("bound", "first", "second", "misses"),
    [
        ("size_ratio=+0.01", 0.2, 0.21, False),
        ("size_ratio=+0.01", 0.2, 0.2101, True),
        ("size_ratio=+5%", 0.2, 0.21, False),
        ("size_ratio=+4%", 0.2, 0.21, True),
        ("size_ratio=-0.05", 0.2, 0.15, False),
        ("size_ratio=-0.05", 0.2, 0.16, True),
        ("size_ratio=0", 0.2, 0.2, False),
        ("agreement=-0.002", 0.99, 0.988, False),
        ("agreement=-0.002", 0.99, 0.9879, True),
        ("agreement=+0.01", 0.98, 0.985, True),
        ("agreement=-1e-3", 0.99, 0.9891, False),
        ("agreement=-0.1", None, 0.99, True),
        ("agreement=-0.1", 0.99, None, True),
        ("agreement=-0.1", 0.99, float("nan"), True),
    ],
)
def test_a_bound_is_missed_by_what_is_worse_than_it_says(bound: str, first: Any, second: Any, misses: bool) -> None:
    (allowed,) = parse([bound])
    before, after = (Row(run_id="a", status="ok", **{allowed.column: value}) for value in (first, second))
    assert bool(allowed.miss(before, after)) == misses


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("size_ratio", "--allow: 'size_ratio' is no bound; write size_ratio=+0.01"),
        ("size_ration=+1", "--allow: unknown figure 'size_ration'; did you mean 'size_ratio'?"),
        ("agreement=0.002", "--allow: agreement: '0.002' is no change; write agreement=-0.01, or agreement=-5%"),
        ("size_ratio=+x", "--allow: size_ratio: '+x' is no change; write size_ratio=+0.01, or size_ratio=+5%"),
    ],
)
def test_what_is_no_bound_is_one_line(word: str, line: str) -> None:
    with pytest.raises(RecipeError) as refused:
        parse([word])
    assert str(refused.value) == line


def test_runs_are_paired_by_id_then_by_settings_then_by_recipe() -> None:
    def results(*rows: Row) -> list[Result]:
        return [Result(row, None) for row in rows]

    same = sized("same-1", 0.2, 0.9, recipe="one")
    left = results(same, sized("a-1", 0.2, 0.9, pruning_amount=0.1), sized("a-2", 0.2, 0.9, pruning_amount=0.2))
    right = results(sized("b-2", 0.2, 0.9, pruning_amount=0.2), sized("b-1", 0.2, 0.9, pruning_amount=0.1), same)
    left += results(sized("c-1", 0.1, 0.9, recipe="other", format="dense"), sized("gone-1", 0.1, 0.9, recipe="gone"))
    right += results(sized("d-1", 0.1, 0.9, recipe="other", format="packed"), sized("new-1", 0.1, 0.9, recipe="new"))
    found = pair(left, right)
    named = {(first.row.run_id, second.row.run_id) for first, second in found.both}
    assert named == {("same-1", "same-1"), ("a-1", "b-1"), ("a-2", "b-2"), ("c-1", "d-1")}
    assert [result.row.run_id for result in found.only_first] == ["gone-1"]
    assert [result.row.run_id for result in found.only_second] == ["new-1"]
    lone = pair(results(sized("x-1", 0.1, 0.9, recipe="x")), results(sized("y-1", 0.1, 0.9, recipe="y")))
    assert len(lone.both) == 1, "one of each belong together whatever they are"


def test_folders_csv_rows_runs_and_artifacts_give_the_same_rows(tmp_path: Path) -> None:
    out = tmp_path / "out"
    grid = [{"batch_size": 1, "speedup": 2.0}]
    folder = stored(out, "one-1", pruning_amount=0.3, threshold=1e-3, latency_grid=grid, texts_cut=0)
    files.assemble(out)
    (row,) = [result.row for result in find(out)]
    for place in (out / "results.csv", folder / "row.json", folder):
        (found,) = find(place)
        assert found.row == row
        assert found.folder == folder
        assert recipe_of(found)["stages.prune.amount"] == "0.2"
    elsewhere = tmp_path / "results.csv"
    shutil.copy(out / "results.csv", elsewhere)
    assert find(elsewhere) == [Result(row, None)]


def test_every_column_comes_back_from_the_csv_as_it_was(tmp_path: Path) -> None:
    kinds = {"status": "ok", "created_at": "2026-01-01"}
    row = Row(**dict.fromkeys(COLUMNS) | {"run_id": "a,1", "latency_grid": []} | kinds | {"error": 'x "y"\nz'})
    files.write_row(tmp_path, row)
    files.assemble(tmp_path)
    assert list(rows_of((tmp_path / "results.csv").read_text())) == [row]


def test_a_real_artifact_without_its_run_is_known_by_its_card(optimizer: Any, tmp_path: Path, tiny_model: Any) -> None:
    model = tiny_model("sequence-classification")
    common = [f"model.path={model}", "data.path=builtin", "evaluation.repetitions=0", "threads=1"]
    assert optimizer("recipe=compact", *common, "out=a")[0] == 0
    assert optimizer("recipe=compact", "stages.quantize.step=1.5", *common, "out=b")[0] == 0
    (artifact,) = Path("a").glob("runs/*/artifact")
    (result,) = find(artifact)
    assert result.folder == artifact.resolve().parent
    moved = tmp_path / "deployed"
    shutil.copytree(artifact, moved)
    (alone,) = find(moved)
    assert alone.folder == moved
    for column in ("size_ratio", "agreement", "artifact_bytes", "examples", "format", "recipe", "original_fingerprint"):
        value, known = getattr(alone.row, column), getattr(result.row, column)
        assert value == (pytest.approx(known, rel=1e-5) if isinstance(known, float) else known), column
    text = diff(moved, Path("b")).markdown
    assert "smaller (" in text
    assert "less alike (" in text
    assert "| stages.quantize.step | 0.25 | 1.5 |" in text
    assert "answered differently" in diff(Path("a"), Path("b")).markdown


def test_places_without_results_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "odd.csv").write_bytes(b"\xff\xfe")
    stored(tmp_path / "a", "one-1"), stored(tmp_path / "a", "one-2", 0.3), stored(tmp_path / "b", "two-1", recipe="x")
    for place, line in (
        ("nowhere", "does not exist; give an out folder"),
        ("empty", "holds no row; give an out folder"),
        ("odd.csv", "cannot be read"),
        ("b", "has no run of a recipe that"),
    ):
        with pytest.raises(ArtifactError, match=line):
            diff(tmp_path / "a", tmp_path / place)


def test_the_command_says_what_it_missed_by_its_exit_code(tmp_path: Path, capsys: Any) -> None:
    import runpy
    import sys
    from unittest import mock

    def command(*arguments: str) -> tuple[int, str, str]:
        with mock.patch.object(sys, "argv", ["diff", *arguments]), pytest.raises(SystemExit) as stopped:
            runpy.run_module("optimizer.diff", run_name="__main__")
        said = capsys.readouterr()
        return int(stopped.value.code or 0), said.out, said.err

    a, b = tmp_path / "a", tmp_path / "b"
    stored(a, "one-1", 0.2, 0.98)
    stored(b, "two-2", 0.25, 0.9799)
    assert command(str(a), str(b))[0] == 0
    allowed = ["--allow", "size_ratio=+0.1", "agreement=-0.002"]
    assert command(str(a), str(b), *allowed)[0] == 0
    code, out, err = command(str(a), str(b), "--allow", "size_ratio=+0.01", "agreement=-0.002")
    assert code == 1
    assert err == "diff: two-2: size_ratio 0.2 to 0.25: changed by +0.05, allowed +0.01\n"
    assert r"- **missed**: size\_ratio 0.2 to 0.25" in out
    for words in ([str(a), str(tmp_path / "c")], [str(a), str(b), "--allow", "nonsense"], [str(a)]):
        code, out, err = command(*words)
        assert (code, out) == (2, "")
        assert len(err.splitlines()) == 1 or err.startswith("usage: ")
    store(b, failed("two-2"))
    code, _, err = command(str(a), str(b), "--allow", "size_ratio=+0.1")
    assert (code, err) == (1, "diff: two-2: failed: weight 'a': its largest value is too large\n")


def test_a_run_that_is_gone_misses_every_bound(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    stored(a, "one-1"), stored(a, "two-1", recipe="other")
    stored(b, "one-1"), stored(b, "new-1", recipe="third")
    found = diff(a, b, {"agreement": -0.01})
    assert found.missed == ["two-1: is not there"]
    assert found.markdown.endswith(f"Only in {a}: two-1\n\nOnly in {b}: new-1\n".replace("_", "\\_"))
    assert diff(a, b).missed == []


def test_it_is_a_function_of_the_package() -> None:
    assert optimizer.diff is diff
    assert str(Allowance("size_ratio", 0.05, is_share=True)) == "+5%"
    with pytest.raises(ImportError, match=r"optimizer\.diff is a function"):
        __import__("optimizer.diff")
