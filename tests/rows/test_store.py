"""Rows and the CSV: nothing lost, whoever writes."""

import csv
import json
import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from optimizer.errors import ArtifactError
from optimizer.rows import store
from optimizer.rows.row import Row
from optimizer.rows.store import assemble, read_row, run_directory, write_row

PROMISED = (
    "run_id status error recipe model pruning_amount threshold stages format parameters original_bytes artifact_bytes "
    "size_ratio bits_per_parameter sparsity agreement agreement_low agreement_high max_logit_difference "
    "mean_logit_difference kl_divergence accuracy original_accuracy perplexity original_perplexity cosine_similarity "
    "data examples latency_ms_p50 latency_ms_p95 original_latency_ms_p50 speedup peak_memory_mb optimize_seconds "
    "evaluate_seconds artifact device threads torch_version transformers_version created_at"
)


def row(run_id: str = "a-1", created_at: str = "2026-01-01T00:00:00.000+00:00", **figures: Any) -> Row:
    return Row(**{"run_id": run_id, "status": "ok", "data": "texts", "created_at": created_at} | figures)


def table(out: Path) -> list[dict[str, str]]:
    with (out / "results.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def left_over(out: Path) -> list[Path]:
    return [path for path in out.rglob("*") if path.is_file() and path.name not in ("row.json", "results.csv")]


# rows


def test_the_columns_are_those_that_were_promised(tmp_path: Path) -> None:
    write_row(tmp_path, row())
    header = (tmp_path / "results.csv").read_text().splitlines()[0]
    assert f"{header},".startswith(PROMISED.replace(" ", ",") + ",")


def test_a_row_is_read_back_as_written(tmp_path: Path) -> None:
    written = row(agreement=0.1 + 0.2, examples=0, speedup=math.inf, error='a, "b"\nc; ü')
    write_row(tmp_path, written)
    assert read_row(tmp_path, "a-1") == written
    assert run_directory(tmp_path, "a-1") == tmp_path / "runs" / "a-1"
    assert left_over(tmp_path) == []


def test_empty_means_not_measured_and_never_zero(tmp_path: Path) -> None:
    write_row(tmp_path, row(examples=0, sparsity=0.0, error='a, "b"\nc; ü'))
    (line,) = table(tmp_path)
    assert (line["examples"], line["sparsity"]) == ("0", "0.0")
    assert line["error"] == 'a, "b"\nc; ü'
    measured = {"run_id", "status", "data", "created_at", "examples", "sparsity", "error"}
    assert {name for name, value in line.items() if value} == measured


def test_figures_keep_all_their_digits(tmp_path: Path) -> None:
    write_row(tmp_path, row(agreement=0.1 + 0.2))
    assert float(table(tmp_path)[0]["agreement"]) == 0.1 + 0.2


def test_a_row_replaces_the_one_of_the_same_run(tmp_path: Path) -> None:
    write_row(tmp_path, row(status="failed", error="x"))
    write_row(tmp_path, row(agreement=1.0))
    (line,) = table(tmp_path)
    assert (line["status"], line["error"], line["agreement"]) == ("ok", "", "1.0")


def test_the_oldest_run_comes_first(tmp_path: Path) -> None:
    for run_id, created_at in (("c", "2026-03"), ("b", "2026-01"), ("a", "2026-03"), ("d", "2026-02")):
        write_row(tmp_path, row(run_id, created_at))
    assert [line["run_id"] for line in table(tmp_path)] == ["b", "d", "a", "c"]


def test_no_rows(tmp_path: Path) -> None:
    assert assemble(tmp_path) == []
    assert table(tmp_path) == []
    assert read_row(tmp_path, "a-1") is None


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"run_id": "x"}', "\udcff"])
def test_a_row_file_that_cannot_be_read_is_skipped(tmp_path: Path, text: str) -> None:
    write_row(tmp_path, row("good"))
    (tmp_path / "runs" / "bad").mkdir()
    (tmp_path / "runs" / "bad" / "row.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    (tmp_path / "runs" / "unfinished").mkdir()
    assert [found.run_id for found in assemble(tmp_path)] == ["good"]
    assert len(table(tmp_path)) == 1
    assert read_row(tmp_path, "bad") is None
    write_row(tmp_path, row("bad"))
    assert len(table(tmp_path)) == 2


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("status", "running"),
        ("status", None),
        ("status", []),
        ("run_id", 1),
        ("created_at", None),
        ("size_ratio", "x"),
        ("threads", "2"),
        ("model", ["a"]),
        ("threshold", [0.1]),
    ],
)
def test_a_row_with_a_value_of_another_kind_counts_as_not_there(tmp_path: Path, column: str, value: Any) -> None:
    write_row(tmp_path, row("good", pruning_amount="0.1 0.2", size_ratio=math.nan))
    write_row(tmp_path, row("bad"))
    path = tmp_path / "runs" / "bad" / "row.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {column: value}))
    assert [found.run_id for found in assemble(tmp_path)] == ["good"]
    assert read_row(tmp_path, "bad") is None


def test_a_row_of_a_later_release_keeps_its_further_columns(tmp_path: Path) -> None:
    write_row(tmp_path, row())
    path = tmp_path / "runs" / "a-1" / "row.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"new_figure": 1}))
    assert assemble(tmp_path)[0].further == {"new_figure": 1}
    assert len(table(tmp_path)) == 1


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(ArtifactError) as caught:
        write_row(tmp_path, row())
    assert str(caught.value) == f"{tmp_path / 'runs' / 'a-1'}: cannot be written (Not a directory)"


def test_the_old_csv_stays_when_the_new_one_cannot_be_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_row(tmp_path, row("old"))
    before = (tmp_path / "results.csv").read_bytes()

    def full(path: Path, *arguments: Any, **options: Any) -> None:
        path.touch()
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(ArtifactError, match=r"cannot be written \(No space left on device\)$"):
            write_row(tmp_path, row("new"))
    assert (tmp_path / "results.csv").read_bytes() == before
    assert left_over(tmp_path) == []


SCRIPT = """
import sys
from pathlib import Path
from optimizer.rows.row import Row
from optimizer.rows.store import write_row

out, process = Path(sys.argv[1]), sys.argv[2]
for number in range(10):
    write_row(out, Row(run_id=f"{process}-{number}", status="ok", created_at=str(number), agreement=0.5))
assert "torch" not in sys.modules
"""


def test_four_processes_at_once_lose_no_row(tmp_path: Path) -> None:
    processes = [subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path), str(number)]) for number in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    expected = {f"{process}-{number}" for process in range(4) for number in range(10)}
    assert {line["run_id"] for line in table(tmp_path)} == expected
    assert left_over(tmp_path) == []


def test_a_row_that_comes_while_the_csv_is_being_written_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_row(tmp_path, row("first"))
    write_csv = store._csv
    waiting = [row("second"), row("third")]

    def interrupted(rows: list[Row]) -> str:
        text = write_csv(rows)
        if waiting:
            late = waiting.pop()
            directory = run_directory(tmp_path, late.run_id)
            directory.mkdir()
            (directory / "row.json").write_text(json.dumps(late.values()))
        return text

    monkeypatch.setattr(store, "_csv", interrupted)
    assert [found.run_id for found in assemble(tmp_path)] == ["first", "second", "third"]
    assert len(table(tmp_path)) == 3


def test_writers_with_the_same_process_id_do_not_meet(tmp_path: Path) -> None:
    """Containers on several machines often have the same one; threads always do."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: write_row(tmp_path, row(f"a-{number}")), range(40)))
    assert {line["run_id"] for line in table(tmp_path)} == {f"a-{number}" for number in range(40)}
    assert left_over(tmp_path) == []
