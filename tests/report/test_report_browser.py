"""The page in a browser: Debian's Chromium, without a screen."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from report_rows import failed, sized, store

from optimizer.report.page import write_report
from optimizer.rows.row import Row

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs Chromium: scripts/setup --system")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """`show(rows)` opens their report; it must load nothing further and say nothing on the console."""
    heard: list[str] = []
    contexts = []

    def open_page(rows: list[Row], **options: Any) -> Any:
        path = write_report(rows, tmp_path)
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: heard.append(message.text))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("request", lambda request: heard.append(request.url) if request.url != path.as_uri() else None)
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert heard == []


ROWS = [
    sized("small-1", 0.1, 0.91, speedup=0.5),
    sized("middle-1", 0.3, 0.99),
    sized("large-1", 0.5, 0.97, model="other"),
    sized("missed-1", 0.2, 0.8, status="rejected", error="agreement 0.8000 misses the gate 0.9 by 0.1000"),
    failed("broken-1", "weight 'a': <script>document.title = 'run'</script>"),
]


def names(page: Any) -> list[str]:
    """The runs that the table shows, from the top."""
    shown: list[str] = page.locator("#table tbody tr:visible th a").all_inner_texts()
    return shown


def told(page: Any, name: str) -> str:
    """What the tooltip says over the point of a run."""
    for point in page.locator("#size_agreement .point").all():
        point.hover(force=True)
        text: str = page.locator("#tip").inner_text()
        if name in text.split("\n"):
            return text
    pytest.fail(f"no point of {name}")


def test_it_opens_from_a_file(show: Callable[..., Any]) -> None:
    page = show(ROWS)
    assert page.title() == "Optimizer report: 5 runs: 3 ok, 1 rejected, 1 failed"
    assert names(page) == ["small-1", "middle-1", "large-1", "missed-1", "broken-1"]


def test_headers_sort_both_ways_and_leave_what_is_empty_last(show: Callable[..., Any]) -> None:
    page = show(ROWS)
    for heading, smallest_first in (
        ("size", ["small-1", "missed-1", "middle-1", "large-1"]),
        ("agreement", ["missed-1", "small-1", "large-1", "middle-1"]),
    ):
        header = (
            page.get_by_role("columnheader", name=heading, exact=False).locator(f"button:text-is('{heading}')").last
        )
        header.click()
        assert names(page) == [*smallest_first, "broken-1"]
        assert header.locator("..").get_attribute("aria-sort") == "ascending"
        header.press("Enter")
        assert names(page) == [*smallest_first[::-1], "broken-1"]
        assert header.locator("..").get_attribute("aria-sort") == "descending"
        assert page.locator("[aria-sort]").count() == 1


def test_numbers_sort_as_numbers(show: Callable[..., Any]) -> None:
    rows = [sized(f"a-{number}", 0.1, 0.9, latency_ms_p50=float(number)) for number in (9, 10, 100)]
    page = show(rows)
    page.locator("#table button:text-is('ms')").click()
    assert names(page) == ["a-9", "a-10", "a-100"]
    for expected in (["a-9", "a-10", "a-100"], ["a-100", "a-10", "a-9"]):
        page.locator("#table button:text-is('run')").click()
        assert names(page) == expected


def test_the_table_filters_by_words_and_status(show: Callable[..., Any]) -> None:
    page = show(ROWS)
    page.get_by_label("Filter").fill("OTHER larg")
    assert names(page) == ["large-1"]
    assert page.locator("#shown").inner_text() == "1 of 5 shown"
    assert page.locator("details:visible").count() == 1
    page.get_by_label("Filter").fill("misses the gate")
    assert names(page) == ["missed-1"]
    page.get_by_label("Status").select_option("failed")
    assert names(page) == []
    page.get_by_label("Filter").fill("")
    assert names(page) == ["broken-1"]
    page.get_by_label("Status").select_option("")
    assert page.locator("#shown").inner_text() == "5 of 5 shown"


def test_a_point_tells_its_run(show: Callable[..., Any]) -> None:
    page = show(ROWS)
    assert page.locator("#tip").is_hidden()
    text = told(page, "small-1")
    assert "agreement 0.9100 (0.9000 to 0.9200)" in text
    assert "slower than its original" in text
    assert "middle-1" not in text
    page.locator("h1").hover()
    assert page.locator("#tip").is_hidden()


def test_points_over_each_other_are_all_told(show: Callable[..., Any]) -> None:
    page = show([sized("a-1", 0.3, 0.9), sized("b-1", 0.3, 0.9, model="other"), sized("c-1", 0.5, 0.9)])
    text = told(page, "a-1")
    assert [name in text for name in ("a-1", "b-1", "c-1")] == [True, True, False]


def test_a_link_opens_the_run(show: Callable[..., Any], tmp_path: Path) -> None:
    page = show([store(tmp_path, sized("a-1", 0.3, 0.9), stages={"prune": {"amount": 0.25}})])
    assert page.get_by_text("amount: 0.25").is_hidden()
    page.locator("#table tbody a").click()
    page.get_by_text("amount: 0.25").wait_for(state="visible")


@pytest.mark.parametrize("rows", [ROWS[:1], [ROWS[-1]], []], ids=["one", "failed", "none"])
def test_few_rows(rows: list[Row], show: Callable[..., Any]) -> None:
    page = show(rows)
    assert page.locator("#table tbody tr").count() == len(rows)
    page.locator("#table button:text-is('status')").click()
    page.get_by_label("Filter").fill("nothing of it")
    assert names(page) == []


def test_no_text_of_a_plot_lies_over_another(show: Callable[..., Any], tmp_path: Path) -> None:
    rows = [
        store(
            tmp_path,
            sized(f"a-{n}", 0.2 + n / 200, 0.95 + n / 300, latency_ms_p50=9 + n % 5, speedup=20 / (9 + n % 5)),
            stages={"prune": {"amount": n / 20}},
        )
        for n in range(12)
    ]
    page = show(rows)
    for plot in ("size_agreement", "size_latency"):
        boxes = [text.bounding_box() for text in page.locator(f"#{plot} svg text").all()]
        labels = page.locator(f"#{plot} svg text", has_text="prune.amount").count()
        assert labels >= 5
        for place, one in enumerate(boxes):
            for other in boxes[:place]:
                apart = [
                    one[start] >= other[start] + other[size] - 2 or other[start] >= one[start] + one[size] - 2
                    for start, size in (("x", "width"), ("y", "height"))
                ]
                assert any(apart), (one, other)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_can_be_read(scheme: str, show: Callable[..., Any]) -> None:
    page = show(ROWS, viewport={"width": 390, "height": 844}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    contrasts = page.evaluate(_CONTRASTS)
    assert len(contrasts) > 20
    assert min(contrasts.values()) >= 4.5, min(contrasts, key=contrasts.get)


# WCAG's contrast of every text with what is behind it.
_CONTRASTS = """() => {
  const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const luminance = (colour) => {
    const [r, g, b] = parse(colour).map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (parse(colour)[3] !== 0) return colour;
    }
  };
  const found = {};
  for (const element of document.querySelectorAll("main *")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || element.closest("svg defs, title, desc, option")) continue;
    const style = getComputedStyle(element);
    const drawn = element instanceof SVGElement ? style.fill : style.color;
    const [one, two] = [luminance(drawn), luminance(behind(element))].sort((a, b) => b - a);
    found[element.textContent.trim().slice(0, 40) + drawn] = (one + 0.05) / (two + 0.05);
  }
  return found;
}"""
