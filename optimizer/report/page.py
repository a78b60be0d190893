"""The report of many runs: one self-contained HTML page, the same as Markdown, and the plots as files."""

import hashlib
from base64 import b64encode
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from optimizer.errors import ArtifactError
from optimizer.files import replacing
from optimizer.report import changed, columns, grid
from optimizer.report.figures import printable
from optimizer.report.markdown import markdown
from optimizer.report.runs import Run, runs
from optimizer.report.table import remarks_on_data
from optimizer.rows.row import COLUMNS, STATUSES, Row, is_held_out

PAGE = "report.html"
MARKDOWN = "report.md"
_HERE = Path(__file__).parent
_ENVIRONMENT = ("device", "processor", "threads", "torch_version", "transformers_version")


def write_report(rows: Sequence[Row], out: Path) -> Path:
    """Write report.html, report.md and the plots in report/ into `out`, and return the page's path.

    The rows may come from anywhere; recipes are shown of those that ran in `out`. Equal rows give equal files, which
    are replaced atomically. Raises ArtifactError when one cannot be written.
    """
    from optimizer.report import plots  # matplotlib takes its time

    found = runs(rows, out)
    asked = {"size_agreement": plots.size_agreement(found), "size_latency": plots.size_latency(found)}
    drawn = {name: plot for name, plot in asked.items() if plot}
    said = _remarks(found)
    for name, plot in drawn.items():
        _replace(out / "report" / f"{name}.png", plot.png)
    _replace(out / MARKDOWN, markdown(found, _headline(found), said).encode())
    _replace(out / PAGE, _page(found, drawn, said).encode())
    for name in asked.keys() - drawn.keys():
        with suppress(OSError):  # an earlier report's
            (out / "report" / f"{name}.png").unlink(missing_ok=True)
    return out / PAGE


def _page(found: Sequence[Run], drawn: Mapping[str, Any], said: Sequence[str]) -> str:
    script = (_HERE / "page.js").read_text(encoding="utf-8")
    return _template().render(
        headline=_headline(found),
        counts=_counts(found),
        remarks=said,
        smallest=_smallest(found),
        plots={name: (Markup(plot.svg), plot.words) for name, plot in drawn.items()},
        columns=columns.worth_showing(found),
        column=columns,
        grid=grid,
        changed=changed,
        runs=found,
        kept=_kept,
        environments=_environments(found),
        style=Markup((_HERE / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        # Nothing but this very script may run, whatever a name or an error text holds.
        script_hash=b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string((_HERE / "page.html.jinja").read_text(encoding="utf-8"))


def _counts(found: Sequence[Run]) -> dict[str, int]:
    counts = Counter(run.row.status for run in found)
    return {status: counts[status] for status in STATUSES if counts[status]}


def _headline(found: Sequence[Run]) -> str:
    counts = ", ".join(f"{count} {status}" for status, count in _counts(found).items())
    return f"{len(found)} {'run' if len(found) == 1 else 'runs'}: {counts}" if found else "no runs"


def _remarks(found: Sequence[Run]) -> list[str]:
    slower = sum(run.is_slower for run in found)
    timed = sum(run.figure("speedup") is not None for run in found)
    remarks = [f"{slower} of {timed} timed runs are slower than their original."] if slower else []
    if len(_environments([run for run in found if run.figure("latency_ms_p50") is not None])) > 1:
        remarks.append("The runs were measured in different environments; their latencies do not compare.")
    return remarks + remarks_on_data([run.row for run in found])


def _smallest(found: Sequence[Run]) -> dict[str, Run | None]:
    """The smallest good run of each model, None where no run is good.

    Where two are equally small that on texts which no search has seen, then the closer one.
    """
    smallest: dict[str, Run | None] = dict.fromkeys(sorted({run.model for run in found}))
    good = [run for run in found if run.row.status == "ok" and run.figure("artifact_bytes") is not None]
    for run in sorted(good, key=_size_first):
        if smallest[run.model] is None:
            smallest[run.model] = run
    return smallest


def _size_first(run: Run) -> tuple[int, bool, float, str]:
    return run.row.artifact_bytes or 0, not is_held_out(run.row), -(run.closeness or 0), run.name


def _environments(found: Sequence[Run]) -> dict[tuple[str, ...], int]:
    """Devices, threads and versions, and how many runs were made there."""
    counts: dict[tuple[str, ...], int] = defaultdict(int)
    for run in found:
        counts[tuple(printable(getattr(run.row, column)) for column in _ENVIRONMENT)] += 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _kept(run: Run) -> dict[str, str]:
    """All that the row holds, by column, but for tables in themselves."""
    shown = (column for column in COLUMNS if column not in ("latency_grid", "gates"))
    known = {column: value for column in shown if (value := getattr(run.row, column)) is not None}
    return {column: f"{value:.6g}" if isinstance(value, float) else printable(value) for column, value in known.items()}


def _replace(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            partial.write_bytes(content)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be written ({error.strerror or error})") from error
