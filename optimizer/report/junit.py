"""The verdicts as JUnit XML, which build servers read: one test case a run, and one for each of its gates."""

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from optimizer.errors import ArtifactError
from optimizer.files import replacing
from optimizer.report.figures import printable
from optimizer.rows.row import Row

FILE = "junit.xml"
_RUN = "made and measured"
_NO_XML = re.compile(r"[^\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # after `printable`, which leaves no control


def write_junit(rows: Sequence[Row], out: Path) -> Path:
    """Write junit.xml into `out` and return its path; ArtifactError when it cannot be written.

    A failed run is an error, a missed gate a failure; both have the line that the screen has.
    """
    suite = ElementTree.Element("testsuite", name="optimizer")
    for row in rows:
        _add(suite, row)
    for count, tag in (("tests", "testcase"), ("failures", "failure"), ("errors", "error")):
        suite.set(count, str(sum(1 for _ in suite.iter(tag))))
    suite.set("skipped", "0")
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with replacing(out / FILE) as partial:
            ElementTree.ElementTree(root).write(partial, encoding="utf-8", xml_declaration=True)
    except OSError as error:
        raise ArtifactError(f"{out / FILE}: cannot be written ({error.strerror or error})") from error
    return out / FILE


def _add(suite: ElementTree.Element, row: Row) -> None:
    seconds = (row.optimize_seconds or 0) + (row.evaluate_seconds or 0)
    run = ElementTree.SubElement(suite, "testcase", classname=_text(row.run_id), name=_RUN, time=f"{seconds:.3f}")
    if row.status == "failed":
        _say(run, "error", row.error or "failed")
        return
    for each in row.gates or ():
        name = f"{each['gate']} {each['bound']}"
        case = ElementTree.SubElement(suite, "testcase", classname=_text(row.run_id), name=_text(name), time="0.000")
        if each["missed"]:
            _say(case, "failure", each["missed"])


def _say(case: ElementTree.Element, tag: str, line: str) -> None:
    ElementTree.SubElement(case, tag, message=_text(line)).text = _text(line)


def _text(text: str) -> str:
    """A text of characters that XML has."""
    return _NO_XML.sub("?", printable(text))
