"""The page as a browser would read it."""

from html.parser import HTMLParser
from pathlib import Path

from optimizer.report.page import write_report
from optimizer.rows.row import Row


class Page(HTMLParser):
    """What a browser would make of a page, as far as the tests look."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[list[str]] = []
        self.points: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")
        if tag == "figure":
            self.points[str(dict(attrs)["id"])] = []
        if tag == "title" and self.points:
            list(self.points.values())[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self._open):
            self.cells[-1][-1] += " ".join(data.split())
        if self._open and self._open[-1] == "title" and self.points:
            list(self.points.values())[-1][-1] += data


def page(rows: list[Row], out: Path) -> Page:
    """The page of these rows."""
    return Page(write_report(rows, out).read_text(encoding="utf-8"))


def line(found: Page, run_id: str) -> list[str]:
    """The cells of a run in the table of all runs."""
    (cells,) = [cells for cells in found.cells if len(cells) > 6 and cells[0].startswith(run_id)]
    return cells
