"""The verdicts for build servers: what fails a build is a failure there, with the line of the screen."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from report_rows import failed, sized, store

from optimizer.errors import ArtifactError
from optimizer.report.__main__ import main
from optimizer.report.junit import write_junit
from optimizer.rows.gates import Gates
from optimizer.rows.verdict import judged

Case = tuple[str, str, str | None, str | None]


def cases(path: Path) -> list[Case]:
    """(class, name, tag of what went wrong, its message) of each test case; the counts are held against them."""
    root = ElementTree.parse(path).getroot()
    assert root.tag == "testsuites"
    (suite,) = root
    found: list[Case] = []
    for case in suite:
        wrong = [(each.tag, each.get("message")) for each in case]
        assert case.tag == "testcase"
        assert float(case.get("time", "")) >= 0
        found.append((str(case.get("classname")), str(case.get("name")), *(wrong[0] if wrong else (None, None))))
    tags = [tag for *_, tag, _ in found]
    counts = {"tests": len(found), "failures": tags.count("failure"), "errors": tags.count("error"), "skipped": 0}
    assert {name: int(suite.get(name, "")) for name in counts} == counts
    return found


def test_a_case_for_each_run_and_each_of_its_gates(tmp_path: Path) -> None:
    gates = Gates(agreement=0.99, size_ratio=0.5)
    rows = [judged(sized("a-1", 0.2, 0.98), gates), sized("b-1", 0.2, 0.98), failed("f-1", "it's <broken> & \x01\nbad")]
    assert write_junit(rows, tmp_path / "new") == tmp_path / "new" / "junit.xml"
    assert cases(tmp_path / "new" / "junit.xml") == [
        ("a-1", "made and measured", None, None),
        ("a-1", "agreement 0.99", "failure", "agreement 0.9800 misses the gate 0.99 by 0.0100"),
        ("a-1", "size_ratio 0.5", None, None),
        ("b-1", "made and measured", None, None),
        ("f-1", "made and measured", "error", "it's <broken> & bad"),
    ]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["junit.xml"]


def test_what_is_no_character_of_xml_is_a_question_mark(tmp_path: Path) -> None:
    write_junit([failed("f-1", "lone \ud800 and \uffff end")], tmp_path)
    (case,) = cases(tmp_path / "junit.xml")
    assert case[3] in ("lone ? and ? end", "lone and end")


def test_the_command_writes_it_beside_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store(tmp_path, judged(sized("a-1", 0.2, 0.98), Gates(agreement=0.99)))
    assert main([f"out={tmp_path}"]) == 0
    assert not (tmp_path / "junit.xml").exists()
    assert main([f"out={tmp_path}", "junit=true"]) == 0
    assert len(cases(tmp_path / "junit.xml")) == 2
    assert main([f"out={tmp_path}", "junit=yes"]) == 2
    assert "unknown argument 'junit=yes'; write out=DIR or junit=true" in capsys.readouterr().err


def test_a_run_writes_its_own_and_what_is_asked_wrongly_is_one_line(optimizer: Any, tmp_path: Path, tiny_model) -> None:
    words = [f"model.path={tiny_model('sequence-classification')}", "data.path=builtin", "evaluation.repetitions=0"]
    code, _, _ = optimizer(
        "recipe=compact", *words, "gates.size_ratio=0.01", "gates.agreement=0.1", "report.junit=true"
    )
    assert code == 1
    run, *gates = cases(tmp_path / "outputs" / "junit.xml")
    assert run[1:] == ("made and measured", None, None)
    assert {name: tag for _, name, tag, _ in gates} == {"size_ratio 0.01": "failure", "agreement 0.1": None}
    code, _, err = optimizer("recipe=compact", *words, "report.junk=true")
    assert (code, err) == (2, "optimizer: report: unknown key 'junk'; did you mean 'report.junit'?\n")


def test_of_a_search_it_holds_what_it_has_come_to(optimizer: Any, tmp_path: Path, tiny_model) -> None:
    pytest.importorskip("optuna")
    words = [f"model.path={tiny_model('sequence-classification')}", "data.path=builtin", "evaluation.repetitions=0"]
    words += ["search.trials=3", "gates.agreement=0.97", "report.junit=true"]
    code, _, _ = optimizer("recipe=smallest", *words)
    found = cases(tmp_path / "outputs" / "junit.xml")
    assert len({run_id for run_id, *_ in found}) == 1
    assert code == int(any(tag for *_, tag, _ in found))


def test_where_it_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match=r"junit\.xml: cannot be written"):
        write_junit([], tmp_path / "file")
