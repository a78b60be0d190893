"""`python -m optimizer.report`."""

import subprocess
import sys
from pathlib import Path

import pytest
from report_rows import measured, store

from optimizer.report.__main__ import main


def test_it_prints_where_the_page_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store(tmp_path, measured("a-1"))
    assert main([f"out={tmp_path}"]) == 0
    assert capsys.readouterr() == (f"{tmp_path / 'report.html'}\n", "")
    assert (tmp_path / "report.html").is_file()


def test_outputs_is_where_it_looks_by_itself(tmp_path: Path) -> None:
    store(tmp_path / "outputs", measured("a-1"))
    command = [sys.executable, "-W", "error", "-m", "optimizer.report"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "outputs/report.html\n", "")


@pytest.mark.parametrize("arguments", [["--verbose"], ["in=x"], ["out="], ["x"], ["out=a", "b"]])
def test_unknown_arguments_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"report: unknown argument '{arguments[-1]}'; write out=DIR or junit=true\n")


def test_a_folder_that_is_not_there_or_holds_no_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "empty", tmp_path / "nowhere"):
        assert main([f"out={out}"]) == 2
        err = capsys.readouterr().err
        assert err == f"report: {out}: holds no runs; write out=DIR, the folder that runs were written to\n"
    assert [path.name for path in tmp_path.rglob("*")] == ["empty"]


def test_rows_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store(tmp_path, measured("a-1"))
    (tmp_path / "runs" / "a-1" / "row.json").write_text("{")
    assert main([f"out={tmp_path}"]) == 2
    assert capsys.readouterr().err == f"report: {tmp_path}: holds no row that can be read; run the recipes again\n"


def test_a_place_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store(tmp_path, measured("a-1"))
    (tmp_path / "report").write_text("")
    assert main([f"out={tmp_path}"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"report: {tmp_path / 'report' / 'size_agreement.png'}: cannot be written (")
    assert err.count("\n") == 1


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "out=DIR" in capsys.readouterr().out
