"""The page, the Markdown and the plots, from whatever rows there are."""

import base64
import hashlib
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_html import Page, line, page
from report_rows import failed, measured, sized

from optimizer.errors import ArtifactError
from optimizer.report.page import write_report
from optimizer.report.table import show
from optimizer.rows.changes import Change, write_changes
from optimizer.rows.row import Row
from optimizer.rows.store import run_directory

FILES = ["report.html", "report.md", "report/size_agreement.png", "report/size_latency.png"]


VARIED = [
    sized("a-3", 0.35, 0.98, speedup=0.5),
    failed("f-1", "weight 'x': too | large\nfor it"),
    sized("a-1", 0.2, 0.95),
    sized("a-2", 0.3, 0.99, speedup=1.0),
    sized("a-4", 0.4, 0.98),
    sized("r-1", 0.1, 0.5, status="rejected", error="y"),
    sized("f-2", 0.05, 0.99, status="failed", error="z"),
    sized("b-1", 0.5, 0.9, model="other", threads=8),
    replace(failed("g-1"), model="third"),
]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the report of VARIED lies."""
    out = tmp_path_factory.mktemp("varied") / "new" / "out"
    assert write_report(VARIED, out) == out / "report.html"
    return out


@pytest.fixture(scope="module")
def varied(out: Path) -> Page:
    """The page of VARIED."""
    return Page((out / "report.html").read_text(encoding="utf-8"))


def test_it_writes_four_files_and_leaves_nothing_else(out: Path) -> None:
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*")) == FILES
    for picture in FILES[2:]:
        assert (out / picture).read_bytes().startswith(b"\x89PNG")


def test_it_loads_nothing(out: Path, varied: Page) -> None:
    loads = [attributes.get(name) for _, attributes in varied.tags for name in ("src", "srcset", "data", "action")]
    assert set(loads) == {None}
    links = {attributes["href"] or "" for _, attributes in varied.tags if "href" in attributes}
    assert {link for link in links if not link.startswith("#")} == {"data:,"}
    text = (out / "report.html").read_text()
    assert not re.search(r"https?:|//cdn|@import", text)
    assert all(target.startswith("#") for target in re.findall(r"url\((.*?)\)", text))


def test_no_id_stands_for_two_things(varied: Page) -> None:
    ids = [attributes["id"] for _, attributes in varied.tags if "id" in attributes]
    assert len({*ids}) == len(ids)


def test_only_the_pages_own_script_may_run(out: Path) -> None:
    text = (out / "report.html").read_text()
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy
    assert "default-src 'none'" in policy[1]
    assert f"script-src 'sha256-{digest}'" in policy[1]


def test_the_headline_counts_by_status(out: Path) -> None:
    counts = "9 runs: 5 ok, 1 rejected, 3 failed"
    assert (out / "report.md").read_text().startswith(f"**{counts}**\n")
    assert f"<title>Optimizer report: {counts}</title>" in (out / "report.html").read_text()


def test_the_smallest_good_run_of_each_model_is_called_that(out: Path, varied: Page) -> None:
    assert ">Smallest run of each model<" in (out / "report.html").read_text()
    best = {cells[0]: cells[1] for cells in varied.cells if cells and cells[0] in ("demo", "other", "third")}
    assert best == {"demo": "a-1", "other": "b-1", "third": "no run is ok"}


def test_a_low_agreement_is_marked(tmp_path: Path) -> None:
    found = page([sized("a-1", 0.1, 0.66), sized("a-2", 0.3, 0.95), measured("b-1", agreement=None)], tmp_path)
    (smallest,) = [cells for cells in found.cells if cells[:2] == ["demo", "a-1"]]
    assert "0.6600low" in smallest
    assert "0.6600low" in line(found, "a-1")
    assert "0.9500" in line(found, "a-2")
    text = (tmp_path / "report.md").read_text()
    assert "| 0.6600 (low) |" in text
    assert text.count("low") == 1


def test_of_two_equally_small_runs_the_closer_one_is_named(tmp_path: Path) -> None:
    found = page([sized("a-1", 0.3, 0.97), sized("a-2", 0.3, 0.99)], tmp_path)
    assert [cells[1] for cells in found.cells if cells[:1] == ["demo"]] == ["a-2"]


def test_good_runs_come_first_and_the_smaller_before_the_larger(out: Path, varied: Page) -> None:
    order = ["a-1", "a-2", "a-3", "a-4", "b-1", "r-1", "f-2", "f-1", "g-1"]
    shown = [attributes["data-run"] for _, attributes in varied.tags if "data-run" in attributes]
    assert shown == [f"run-{number}" for number in range(9)]
    table = (out / "report.md").read_text().splitlines()[4:13]
    assert [cells.split(" | ")[0] for cells in table] == [f"| {name}" for name in order]


def test_the_front_is_marked_for_each_model(varied: Page) -> None:
    marked = {cells[0] for cells in varied.cells if cells and cells[0].endswith("front")}
    assert marked == {"a-1front", "a-2front", "b-1front"}


def test_a_slower_run_is_told_plainly(out: Path, varied: Page) -> None:
    assert "0.50xslower" in line(varied, "a-3")
    assert "1.00x" in line(varied, "a-2")
    text = (out / "report.md").read_text()
    assert "0.50x (slower)" in text
    assert "- 1 of 7 timed runs are slower than their original." in text


def test_failed_runs_have_no_point_and_rejected_ones_have(varied: Page) -> None:
    for points in varied.points.values():
        assert sorted(tip.split("\n")[0] for tip in points) == ["a-1", "a-2", "a-3", "a-4", "b-1", "r-1"]


def test_error_texts_are_on_the_page_and_in_the_markdown(out: Path, varied: Page) -> None:
    assert line(varied, "f-1")[0] == "f-1weight 'x': too | large for it"
    assert (
        "- r-1 rejected: y\n- f-2 failed: z\n- f-1 failed: weight 'x': too \\| large for it\n"
        in (out / "report.md").read_text()
    )


def test_the_environment_is_told_and_that_latencies_of_several_do_not_compare(out: Path, varied: Page) -> None:
    assert ["cpu", "", "2", "2.13.0", "5.23.0", "6"] in varied.cells
    assert ["cpu", "", "8", "2.13.0", "5.23.0", "1"] in varied.cells
    assert "different environments" in (out / "report.md").read_text()


def test_the_latencies_of_a_grid_are_a_table(tmp_path: Path) -> None:
    cell = {"batch_size": 8, "length": 128, "latency_ms_p50": 10.04, "latency_ms_p95": 11, "speedup": 2.5}
    whole = cell | {
        "original_latency_ms_p50": 25.1, "original_latency_ms_p95": 30, "speedup_low": 2.4, "speedup_high": 2.6
    }  # fmt: skip
    odd: list[Any] = [whole, cell | {"length": None}, "no cell", {"speedup": "fast"}]
    text = write_report([sized("a-1", 0.2, 0.98, latency_grid=odd), sized("a-2", 0.2, 0.98)], tmp_path).read_text()
    cells = Page(text).cells
    assert ["8", "128", "10.0", "11.0", "25.1", "30.0", "2.50x", "2.40 to 2.60"] in cells
    assert ["8", "", "10.0", "11.0", "", "", "2.50x", ""] in cells
    assert [""] * 8 in cells
    assert text.count("Latency by batch and length") == 1
    assert "latency_grid" not in text


def test_answers_that_changed_are_a_table_with_their_texts_where_these_are_kept(tmp_path: Path) -> None:
    def change(position: int, margin: float, **more: Any) -> Change:
        answers = {"original": "refund", "artifact": "<b>cancel</b>", "artifact_margin": 0.1}
        return Change(position=position, original_margin=margin, **answers, **more)

    for name in ("a-1", "a-2", "a-3"):
        run_directory(tmp_path, name).mkdir(parents=True)
    write_changes(run_directory(tmp_path, "a-1"), [change(place, place / 100) for place in range(25)])
    kept = [change(7, 0.5, text="where is <i>it</i>", token=2, tokens=3), change(9, 0.4, text=["one", "other"])]
    write_changes(run_directory(tmp_path, "a-2"), kept)
    write_changes(run_directory(tmp_path, "a-3"), [])
    text = write_report([sized(f"a-{number}", 0.2, 0.98) for number in (1, 2, 3)], tmp_path).read_text()
    cells = Page(text).cells
    assert ["text", "original", "sure", "artifact", "sure"] in cells
    assert [row[0] for row in cells if row[1:2] == ["refund"]] == [str(place) for place in range(24, 4, -1)]
    assert ["7, token 2 and 2 more", "where is <i>it</i>", "refund", "0.5000", "<b>cancel</b>", "0.1000"] in cells
    assert ["9", "one | other", "refund", "0.4000", "<b>cancel</b>", "0.1000"] in cells
    assert "25 texts are answered otherwise than by the original; the 20 of which it was surest" in text
    assert "2 texts are answered otherwise than by the original. How sure" in text
    assert text.count("<h3>Changed answers</h3>") == 2
    assert "<b>cancel" not in text


def test_equal_rows_give_equal_files_in_any_order(tmp_path: Path) -> None:
    rows = [sized("a-1", 0.2, 0.98), sized("b-1", 0.5, 1.0, status="rejected", error="x"), failed("c-1")]
    write_report(rows, tmp_path / "one")
    write_report(rows[::-1], tmp_path / "two")
    for file in FILES:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_the_colours_of_the_plots_follow_the_page(tmp_path: Path) -> None:
    write_report([sized(f"a-{number}", 0.2, 0.98, model=f"m{number}") for number in range(9)], tmp_path)
    text = (tmp_path / "report.html").read_text()
    drawings = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    used = set(re.findall(r"var\((--[\w-]+)\)", drawings))
    assert {"--ink", "--paper", "--series-0", "--series-6"} <= used
    assert not re.search(r"#[0-9a-f]{6}\b", drawings)
    assert all(text.count(f"{variable}: #") == 2 for variable in used)  # light and dark


def test_names_and_errors_are_text_whatever_they_hold(tmp_path: Path) -> None:
    bad = "<script>alert(1)</script>\"'&</style></svg>"
    rows = [
        measured(bad, model=bad, recipe=bad, artifact=bad, stages=bad, torch_version=bad),
        replace(failed("b-1", error=bad), model="m $x$ _{ \\frac \x00\udcff 模型"),
        measured("$a_$", model="$\\bad$"),
        measured("d-1", model="模型", recipe="小", speedup=0.5, size_ratio=0.7),
        measured("c-1", status="rejected", error=bad, model="_hidden"),
    ]
    found = page(rows, tmp_path)
    assert sum(tag == "script" for tag, _ in found.tags) == 1
    assert [tag for tag, _ in found.tags].count("svg") == 2
    assert any(tip.startswith(bad) for tip in found.points["size_agreement"])
    assert "| <" not in (tmp_path / "report.md").read_text()


ABSENT = [
    ("agreement", "agreement_low", "agreement_high"),
    ("agreement_low", "agreement_high"),
    ("size_ratio", "artifact_bytes"),
    ("latency_ms_p50", "original_latency_ms_p50", "speedup"),
    ("original_latency_ms_p50",),
    ("examples", "accuracy", "perplexity", "peak_memory_mb", "sparsity", "optimize_seconds"),
]


def test_figures_that_are_none_or_no_numbers(tmp_path: Path) -> None:
    empties = (None, math.nan, math.inf, -math.inf)
    rows = [
        measured(
            f"a-{place}-{empty}",
            **{"size_ratio": 0.1 + place / 10, "speedup": place + 1} | dict.fromkeys(columns, empty),
        )
        for place, columns in enumerate(ABSENT)
        for empty in empties
    ]
    found = page([*rows, measured("b-1")], tmp_path)
    assert len({len(line(found, row.run_id)) for row in rows}) == 1
    drawn = {
        plot: {run for point in points for run in re.findall("a-[0-9]-[^\n]*", point)}
        for plot, points in found.points.items()
    }
    names = {row.run_id for row in rows}
    assert drawn["size_agreement"] == {name for name in names if name[:3] not in ("a-0", "a-2")}
    assert drawn["size_latency"] == {name for name in names if name[:3] not in ("a-2", "a-3")}


def test_cosine_similarity_stands_where_a_model_decides_on_nothing(tmp_path: Path) -> None:
    encoder: dict[str, Any] = {"agreement": None, "agreement_low": None, "agreement_high": None}
    found = page([measured("a-1", **encoder, cosine_similarity=0.9876)], tmp_path)
    assert "0.9876" in line(found, "a-1")
    assert "cosine similarity 0.9876" in found.points["size_agreement"][0]
    assert "cosine similarity with the original" in (tmp_path / "report.html").read_text()


def test_runs_at_the_same_place_are_one_point_that_names_them_all(tmp_path: Path) -> None:
    found = page([measured(f"a-{number}") for number in range(10)], tmp_path)
    for (tip,) in found.points.values():
        assert [f"a-{number}\n" in tip for number in range(10)] == [True] * 8 + [False] * 2
        assert tip.endswith("and 2 more")


@pytest.mark.parametrize("rows", [[], [failed("a-1")], [measured("a-1")]], ids=["none", "failed", "one"])
def test_there_is_always_a_page(rows: list[Row], tmp_path: Path) -> None:
    write_report(rows, tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert "different environments" not in text
    drawn = any(row.status == "ok" for row in rows)
    assert ("<svg" in text) == drawn
    assert all((tmp_path / file).exists() for file in (FILES if drawn else FILES[:2]))


def test_a_plot_without_a_point_is_left_out(tmp_path: Path) -> None:
    page([measured("a-1")], tmp_path)
    found = page([measured("a-1", latency_ms_p50=None, original_latency_ms_p50=None, speedup=None)], tmp_path)
    assert list(found.points) == ["size_agreement"]
    assert not (tmp_path / "report" / "size_latency.png").exists()


@pytest.mark.parametrize(
    ("figures", "slower"),
    [
        ({"speedup": 0.98, "speedup_low": 0.9, "speedup_high": 1.1}, False),
        ({"speedup": 0.98, "speedup_low": 0.96, "speedup_high": 0.99}, True),
        ({"speedup": 0.96}, False),
        ({"speedup": 0.94}, True),
    ],
)
def test_slower_is_said_beyond_the_noise_alone(
    figures: dict[str, float], slower: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = measured("a-1", **figures)
    write_report([row], tmp_path)
    show([row])
    assert ("1 of 1 timed runs are slower" in (tmp_path / "report.md").read_text()) is slower
    said = f"a-1 is slower than its original: {1 / row.speedup:.2f} times"
    assert (said in capsys.readouterr().out) is slower


def test_one_line_sums_up_what_is_slow_or_rests_on_little(capsys: pytest.CaptureFixture[str]) -> None:
    slow = [sized(f"a-{n}", 0.2, 0.9, speedup=speed, examples=n * 100) for n, speed in ((1, 0.5), (2, 0.25))]
    wide = [replace(row, agreement_low=0.8, agreement_high=0.8 + 0.1 * n) for n, row in enumerate(slow, start=1)]
    show([*wide, sized("b-1", 0.2, 0.99, agreement_low=0.985, texts_cut=3, texts_blank=1)])
    out = capsys.readouterr().out
    assert "2 of 3 runs are slower than their original: 2.0 to 4.0 times the latency." in out
    assert "2 of 3 runs: 100 texts are too few to pin the agreement down: the interval is 0.200 wide." in out
    assert "3 texts of demo were longer than the model reads, and cut." in out
    assert "1 text of demo was blank." in out
    show(wide[:1])
    out = capsys.readouterr().out
    assert "a-1 is slower than its original: 2.0 times the latency." in out
    assert "a-1: 100 texts are too few to pin the agreement down: the interval is 0.100 wide." in out


def test_latency_is_drawn_beside_the_originals_of_the_same_moment(tmp_path: Path) -> None:
    rows = [
        # faster than its original, at a moment when everything took four times as long
        sized("busy", 0.2, 0.98, latency_ms_p50=40.0, original_latency_ms_p50=43.6, speedup=1.09),
        sized("idle", 0.3, 0.98, latency_ms_p50=10.0, original_latency_ms_p50=10.0, speedup=1.0),
        sized("slow", 0.4, 0.98, latency_ms_p50=11.0, original_latency_ms_p50=10.0, speedup=10 / 11),
    ]
    drawn = write_report(rows, tmp_path).read_text().partition('id="size_latency"')[2]
    (line_at,) = re.findall(r'<path d="M \S+ (\S+)  L \S+ \1  "[^>]*stroke-dasharray', drawn)
    points = re.findall(r"<title>(\w+)\n.*?<use [^>]* y=\"(\S+)\"", drawn, re.DOTALL)
    height = {name: float(line_at) - float(y) for name, y in points}
    assert height["idle"] == pytest.approx(0, abs=1e-3)
    assert height["slow"] > 0
    assert height["busy"] / height["slow"] == pytest.approx((1 / 1.09 - 1) / 0.1, rel=1e-3)


def test_what_cannot_be_told_from_the_original_is_as_fast(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    even = measured("a-1", speedup=0.98, speedup_low=0.9, speedup_high=1.1)
    faster = measured("b-1", speedup=2.0, speedup_low=1.9, speedup_high=2.1)
    assert "0.98x, as fast" in line(page([even, faster], tmp_path), "a-1")
    show([even, faster])
    out = capsys.readouterr().out
    assert "0.98x, as fast" in out
    assert "2.00x " in out


@pytest.mark.parametrize(
    ("counted", "heading"),
    [(["tokens"] * 2, "tokens"), ([None] * 2, "texts"), (["texts", None], "texts"), (["texts", "images"], "examples")],
)
def test_the_table_says_what_is_counted(
    counted: list[str | None], heading: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [measured(f"a-{number}", counted=each) for number, each in enumerate(counted)]
    show(rows)
    header = capsys.readouterr().out.splitlines()[0].split()
    assert header[header.index("interval") + 1] == heading


def test_what_was_measured_quickly_is_called_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick, full = measured("a-1", evaluation="quick"), measured("b-1", evaluation="full")
    show([quick])
    assert "This was measured quickly, on too few texts or repetitions to rely on: evaluation=full" in (
        capsys.readouterr().out
    )
    page([quick, full], tmp_path)
    for file in FILES[:2]:
        assert "1 of 2 runs were measured quickly" in (tmp_path / file).read_text()
    show([full])
    assert "quickly" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({"distinct_answers": 1, "original_distinct_answers": 4},
         "a-1 is broken: it gives one answer to all 2000 examples, where the original gives 4 different ones."),
        ({"distinct_answers": 4, "original_distinct_answers": 4, "agreement": 0.2},
         "a-1 is broken: it agrees with the original on fewer examples than guessing among its 4 answers would."),
        ({"distinct_answers": 1, "original_distinct_answers": 1}, ""),
        ({"distinct_answers": 3, "original_distinct_answers": 4}, ""),
    ],
)  # fmt: skip
def test_broken_answers_are_called_so(figures: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    show([measured("a-1", **figures)])
    printed = capsys.readouterr().out
    assert said in printed
    assert ("is broken" in printed) is bool(said)


# files


def test_a_full_disk_is_one_line_and_the_old_page_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_report([measured("a-1")], tmp_path)
    before = {file: (tmp_path / file).read_bytes() for file in FILES}

    def full(path: Path, content: bytes) -> int:
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ArtifactError, match=r"cannot be written \(No space left on device\)$"):
        write_report([failed("b-1")], tmp_path)
    assert {file: (tmp_path / file).read_bytes() for file in FILES} == before
    assert not list(tmp_path.rglob("*.partial"))


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(ArtifactError) as caught:
        write_report([measured("a-1")], tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert (tmp_path / "out").read_text() == ""


SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path

import optimizer.report.page as page
assert not {"matplotlib", "torch"} & set(sys.modules)
import matplotlib
settings = lambda: {key: matplotlib.rcParams[key] for key in matplotlib.rcParams if key != "backend"}
before = settings()
page.write_report([], Path(sys.argv[1]))
assert settings() == before
assert "matplotlib.pyplot" not in sys.modules
"""


def test_matplotlib_comes_late_and_is_left_as_it_was(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], check=True)
