"""What the page says about recipes."""

from pathlib import Path
from typing import Any

from report_html import line, page
from report_rows import measured, store

from optimizer.report.page import write_report
from optimizer.rows.row import Row


def differs(out: Path, *rows: Row) -> list[str]:
    found = page(list(rows), out)
    (header,) = [cells for cells in found.cells if cells[:2] == ["run", "status"]]
    if "differs in" not in header:
        return [""] * len(rows)
    place = header.index("differs in")
    return [line(found, row.run_id)[place] for row in rows]


def test_settings_that_differ_within_a_recipe_and_model_are_shown(tmp_path: Path) -> None:
    def stages(amount: float) -> dict[str, Any]:
        return {"prune": {"amount": amount, "skip": ["*.a"]}, "cast": {"dtype": "float16"}}

    rows = [
        store(tmp_path, measured("a-1"), stages=stages(0.2), seed=0),
        store(tmp_path, measured("a-2"), stages=stages(0.3), seed=0),
        store(tmp_path, measured("b-1", model="other"), stages=stages(0.4), seed=0),
        store(tmp_path, measured("c-1", recipe="fp16"), stages=stages(0.5), seed=1),
    ]
    assert differs(tmp_path, *rows) == ["stages.prune.amount=0.2", "stages.prune.amount=0.3", "", ""]


def test_stages_left_out_or_in_another_order_differ(tmp_path: Path) -> None:
    prune, cast = {"amount": 0.2}, {"dtype": "float16"}
    rows = [
        store(tmp_path, measured("a-1"), stages={"prune": prune, "cast": cast}),
        store(tmp_path, measured("a-2"), stages={"cast": cast, "prune": prune}),
        store(tmp_path, measured("a-3"), stages={"cast": cast}, gates={"agreement": 0.9}),
    ]
    assert differs(tmp_path, *rows) == [
        "stages=prune caststages.prune.amount=0.2",
        "stages=cast prunestages.prune.amount=0.2",
        "stages=castgates.agreement=0.9",
    ]


def test_the_recipe_is_shown_as_it_was_resolved(tmp_path: Path) -> None:
    row = store(tmp_path, measured("a-1"), stages={"prune": {"only": ["<b>"], "amount": 0.001}})
    write_report([row], tmp_path)
    assert (
        "stages:\n  prune:\n    only:\n    - &lt;b&gt;\n    amount: 0.001\n" in (tmp_path / "report.html").read_text()
    )


def test_a_damaged_recipe_does_not_stop_the_report(tmp_path: Path) -> None:
    rows = [store(tmp_path, measured(f"a-{seed}"), seed=seed) for seed in range(8)]
    for number, text in enumerate(["", "- a\n", "a: [", "a: ${b}", "\udcff", "a: 1\na: 2\n"]):
        path = tmp_path / "runs" / f"a-{number}" / "recipe.yaml"
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert differs(tmp_path, *rows) == [*[""] * 6, "seed=6", "seed=7"]


def test_rows_from_elsewhere_have_no_recipe(tmp_path: Path) -> None:
    elsewhere = {"recipe": None, "stages": None, "format": None, "created_at": None, "artifact": "/models/a"}
    write_report([measured("/models/a", **elsewhere), measured("..", **elsewhere)], tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert text.count("No recipe is kept for this run here.") == 2
    assert "<dd>/models/a</dd>" in text
