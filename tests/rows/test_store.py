"""Rows and the CSV: nothing lost, whoever writes."""

import csv
import json
import math
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from optimizer.errors import ArtifactError
from optimizer.rows.row import COLUMNS, Row
from optimizer.rows.store import assemble, assembled, follow, read_row, run_directory, write_row

PROMISED = (
    "run_id status error recipe model pruning_amount threshold stages format parameters original_bytes artifact_bytes "
    "size_ratio bits_per_parameter sparsity agreement agreement_low agreement_high max_logit_difference "
    "mean_logit_difference kl_divergence accuracy original_accuracy perplexity original_perplexity cosine_similarity "
    "data examples latency_ms_p50 latency_ms_p95 original_latency_ms_p50 speedup peak_memory_mb optimize_seconds "
    "evaluate_seconds artifact device threads torch_version transformers_version created_at"
)


def row(run_id: str = "a-1", created_at: str = "2026-01-01T00:00:00.000+00:00", **figures: Any) -> Row:
    return Row(**{"run_id": run_id, "status": "ok", "data": "texts", "created_at": created_at} | figures)


def write(out: Path, *rows: Row) -> None:
    """Store rows as a command does that ends."""
    with assembled(out):
        for each in rows:
            write_row(out, each)


def table(out: Path) -> list[dict[str, str]]:
    with (out / "results.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def left_over(out: Path) -> list[Path]:
    return [path for path in out.rglob("*") if path.is_file() and path.name not in ("row.json", "results.csv")]


# rows


def test_the_columns_are_those_that_were_promised(tmp_path: Path) -> None:
    write(tmp_path, row())
    header = (tmp_path / "results.csv").read_text().splitlines()[0]
    assert f"{header},".startswith(PROMISED.replace(" ", ",") + ",")


def test_a_row_is_read_back_as_written(tmp_path: Path) -> None:
    written = row(agreement=0.1 + 0.2, examples=0, speedup=math.inf, error='a, "b"\nc; ü')
    write(tmp_path, written)
    assert read_row(tmp_path, "a-1") == written
    assert run_directory(tmp_path, "a-1") == tmp_path / "runs" / "a-1"
    assert left_over(tmp_path) == []


def test_empty_means_not_measured_and_never_zero(tmp_path: Path) -> None:
    write(tmp_path, row(examples=0, sparsity=0.0, error='a, "b"\nc; ü'))
    (line,) = table(tmp_path)
    assert (line["examples"], line["sparsity"]) == ("0", "0.0")
    assert line["error"] == 'a, "b"\nc; ü'
    measured = {"run_id", "status", "data", "created_at", "examples", "sparsity", "error"}
    assert {name for name, value in line.items() if value} == measured


def test_figures_keep_all_their_digits(tmp_path: Path) -> None:
    write(tmp_path, row(agreement=0.1 + 0.2))
    assert float(table(tmp_path)[0]["agreement"]) == 0.1 + 0.2


def test_a_row_replaces_the_one_of_the_same_run(tmp_path: Path) -> None:
    write(tmp_path, row(status="failed", error="x"))
    write(tmp_path, row(agreement=1.0))
    (line,) = table(tmp_path)
    assert (line["status"], line["error"], line["agreement"]) == ("ok", "", "1.0")


def test_the_oldest_run_comes_first(tmp_path: Path) -> None:
    for run_id, created_at in (("c", "2026-03"), ("b", "2026-01"), ("a", "2026-03"), ("d", "2026-02")):
        write(tmp_path, row(run_id, created_at))
    assert [line["run_id"] for line in table(tmp_path)] == ["b", "d", "a", "c"]


def test_no_rows(tmp_path: Path) -> None:
    assert assemble(tmp_path) == []
    assert table(tmp_path) == []
    assert read_row(tmp_path, "a-1") is None


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"run_id": "x"}', "\udcff"])
def test_a_row_file_that_cannot_be_read_is_skipped(tmp_path: Path, text: str) -> None:
    write(tmp_path, row("good"))
    (tmp_path / "runs" / "bad").mkdir()
    (tmp_path / "runs" / "bad" / "row.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    (tmp_path / "runs" / "unfinished").mkdir()
    assert [found.run_id for found in assemble(tmp_path)] == ["good"]
    assert len(table(tmp_path)) == 1
    assert read_row(tmp_path, "bad") is None
    write(tmp_path, row("bad"))
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
    write(tmp_path, row("good", pruning_amount="0.1 0.2", size_ratio=math.nan))
    write(tmp_path, row("bad"))
    path = tmp_path / "runs" / "bad" / "row.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {column: value}))
    assert [found.run_id for found in assemble(tmp_path)] == ["good"]
    assert read_row(tmp_path, "bad") is None


def test_a_row_of_a_later_release_keeps_its_further_columns(tmp_path: Path) -> None:
    write(tmp_path, row())
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
    write(tmp_path, row("old"))
    before = (tmp_path / "results.csv").read_bytes()

    def full(path: Path, *arguments: Any, **options: Any) -> None:
        path.touch()
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        for store in (lambda: write_row(tmp_path, row("new")), lambda: assemble(tmp_path)):
            with pytest.raises(ArtifactError, match=r"cannot be written \(No space left on device\)$"):
                store()
    assert (tmp_path / "results.csv").read_bytes() == before
    assert left_over(tmp_path) == []


# many writers


SCRIPT = """
import sys
from pathlib import Path
from optimizer.rows.row import Row
from optimizer.rows.store import assembled, follow, write_row

out, process, last = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
with assembled(out):
    for number in range(last):
        write_row(out, Row(run_id=f"{process}-{number}", status="ok", created_at=str(number), agreement=0.5))
        follow(out)
    if sys.argv[4:]:
        print("killed here", flush=True)
        sys.stdin.read()
assert "torch" not in sys.modules
"""


def start(out: Path, name: str, rows: int, *more: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", SCRIPT, str(out), name, str(rows), *more]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_table_within_a_row_is_json_in_the_csv(tmp_path: Path) -> None:
    cells = [{"batch_size": 1, "length": None, "speedup": 2.5}]
    write(tmp_path, row("first", latency_grid=cells))
    assert read_row(tmp_path, "first") == row("first", latency_grid=cells)
    assemble(tmp_path)
    (line,) = table(tmp_path)
    assert json.loads(line["latency_grid"]) == cells


def test_four_processes_at_once_lose_no_row_and_show_no_half_a_table(tmp_path: Path) -> None:
    write(tmp_path, row("first"))
    deadline = time.monotonic() + 60
    with ExitStack() as stack:
        processes = [stack.enter_context(start(tmp_path, str(number), 100)) for number in range(4)]
        while any(process.poll() is None for process in processes):
            assert time.monotonic() < deadline
            text = (tmp_path / "results.csv").read_text()
            assert text.startswith("run_id,status,")
            assert text.endswith("\n")
            assert {len(cells) for cells in csv.reader(text.splitlines())} == {len(COLUMNS)}
    assert [process.returncode for process in processes] == [0] * 4
    expected = {f"{process}-{number}" for process in range(4) for number in range(100)} | {"first"}
    assert {line["run_id"] for line in table(tmp_path)} == expected
    assert left_over(tmp_path) == []


def test_what_a_killed_writer_left_out_the_next_command_puts_in(tmp_path: Path) -> None:
    with start(tmp_path, "killed", 20, "wait") as process:
        assert process.stdout
        assert process.stdout.readline() == "killed here\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert len(table(tmp_path)) < 20
    write(tmp_path, row("next"))
    assert {line["run_id"] for line in table(tmp_path)} == {f"killed-{number}" for number in range(20)} | {"next"}


def test_the_csv_is_complete_however_a_command_ends(tmp_path: Path) -> None:
    def interrupted() -> None:
        with assembled(tmp_path):
            write_row(tmp_path, row())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [line["run_id"] for line in table(tmp_path)] == ["a-1"]


def test_a_command_that_began_no_run_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError), assembled(tmp_path):
        raise ArtifactError("out of luck")
    with assembled(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_row_costs_no_table_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    replace = Path.replace

    def counted(path: Path, target: Path) -> Path:
        written.append(target.name)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", counted)
    start = time.monotonic()
    for number in range(200):
        write_row(tmp_path, row(f"a-{number}"))
        follow(tmp_path)
    seconds = time.monotonic() - start
    assert written.count("row.json") == 200
    assert 1 <= written.count("results.csv") <= 2 + seconds


def test_a_row_that_is_replaced_while_the_command_runs_is_told_anew(tmp_path: Path) -> None:
    write(tmp_path, row(status="failed"), row("b-1"))
    write(tmp_path, row(status="ok"))
    assert [line["status"] for line in table(tmp_path)] == ["ok", "ok"]
    shutil.rmtree(tmp_path / "runs" / "b-1")
    write(tmp_path)
    assert [line["run_id"] for line in table(tmp_path)] == ["a-1"]


def test_a_text_that_is_no_unicode_does_not_stop_the_table(tmp_path: Path) -> None:
    write(tmp_path, row(error="\udcff"))
    assert table(tmp_path)[0]["error"] == "\\udcff"


def test_a_row_that_comes_while_the_csv_is_being_written_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_row(tmp_path, row("first"))
    waiting = [row("second"), row("third")]
    replace = Path.replace

    def interrupted(path: Path, target: Path) -> Path:
        if target.name == "results.csv" and waiting:
            write_row(tmp_path, waiting.pop())
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    assert {found.run_id for found in assemble(tmp_path)} == {"first", "second", "third"}
    assert len(table(tmp_path)) == 3


def test_writers_with_the_same_process_id_do_not_meet(tmp_path: Path) -> None:
    """Containers on several machines often have the same one; threads always do."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: write(tmp_path, row(f"a-{number}")), range(40)))
    assert {line["run_id"] for line in table(tmp_path)} == {f"a-{number}" for number in range(40)}
    assert left_over(tmp_path) == []
