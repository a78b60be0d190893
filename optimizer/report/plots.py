"""Size against agreement and size against latency, as SVG for the page and as PNG files."""

import math
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from itertools import groupby
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter, ScalarFormatter

from optimizer.report import captions, labels, svg
from optimizer.report.columns import figures
from optimizer.report.runs import Run, shortened
from optimizer.rows.front import closeness, ends

# The CSS variables that the page has for light and for dark, and what they are in a PNG.
_INK, _MUTED, _GRID, _PAPER = "#1f2328", "#59636e", "#d8dee4", "#ffffff"
_SERIES = ("#0072b2", "#c84e00", "#00805d", "#a8447f", "#7a6200", "#3a8fc4", "#5b5b5b")
_COLOURS = {_INK: "ink", _MUTED: "muted", _GRID: "grid", _PAPER: "paper"} | {
    colour: f"series-{number}" for number, colour in enumerate(_SERIES)
}
_MARKERS = "osD^vPX"
_SIZE = (5.8, 4.3)  # inches: readable on a phone and side by side on a desk
_MOST_LABELLED = 40  # among more points only the front's are labelled
_MOST_NAMED = 8
_DECADE = 10
_LEGEND_WIDTH = 78  # characters
_DASHES = (0, (4, 3))
_LEGEND: dict[str, Any] = {
    "frameon": False,
    "fontsize": 9,
    "handlelength": 1.8,
    "handletextpad": 0.5,
    "columnspacing": 1.2,
}


@dataclass(frozen=True)
class Plot:
    """A plot as an element of the page and as the bytes of a PNG file, and what it shows in words."""

    svg: str
    png: bytes
    words: str


@dataclass(frozen=True)
class _Point:
    """Runs at one and the same place; `low` and `high` are the ends of the interval, or the place itself."""

    runs: list[Run]
    x: float
    y: float
    low: float
    high: float

    @property
    def on_front(self) -> bool:
        return any(run.on_front for run in self.runs)

    @property
    def tip(self) -> str:
        shown = ["\n".join([run.name, *run.settings, *figures(run)]) for run in self.runs[:_MOST_NAMED]]
        left_out = len(self.runs) - len(shown)
        return "\n\n".join([*shown, *([f"and {left_out} more"] if left_out else [])])

    @property
    def label(self) -> str:
        others = len(self.runs) - 1
        return self.runs[0].label + (f" +{others}" if others else "")


def size_agreement(runs: Sequence[Run]) -> Plot | None:
    """How close each run is to its original at which size, with 95 % intervals and the front; None without a figure."""
    points = _points(runs, lambda run: run.closeness, _closeness_ends)
    if not points:
        return None
    models = _models(points)
    what = " or ".join(sorted({closeness(run.row) for run in _runs(points)}))
    with _axes(f"{what} with the original") as (figure, axes):
        _limit(axes, points, least=0.02, ceiling=1)
        _draw_intervals(axes, points, models)
        _draw_front(axes, [run for run in _runs(points) if run.on_front], models)
        _draw_points(axes, points, models, rings=True)
        bar = Line2D([], [], color=_MUTED, markeredgewidth=1.4, marker="|", markersize=9, linestyle="")
        ring = _key("o", _INK, hollow=True)
        ring.set(linestyle="-", linewidth=1.4, color=_MUTED, markeredgecolor=_INK)
        _finish(figure, axes, points, models, [(ring, "on the front"), (bar, "95 % interval")])
        return _plot(figure, "size_agreement", points, captions.agreement(runs, _runs(points), what))


def size_latency(runs: Sequence[Run]) -> Plot | None:
    """How long each run takes beside its own original, measured in turns with it, at which size; None without a figure.

    Milliseconds of different moments do not compare.
    """
    points = _points(runs, lambda run: _inverse(run.figure("speedup")), _latency_ends)
    if not points:
        return None
    models = _models(points)
    with _axes("latency, share of the original's") as (figure, axes):
        _limit(axes, points, least=0.1, further=[1])
        axes.axhline(1, color=_MUTED, linestyle=_DASHES, linewidth=1, zorder=1)
        _draw_intervals(axes, points, models)
        _draw_points(axes, points, models, rings=False)
        bar = Line2D([], [], color=_MUTED, markeredgewidth=1.4, marker="|", markersize=9, linestyle="")
        key = Line2D([], [], color=_MUTED, linestyle=_DASHES, linewidth=1)
        _finish(figure, axes, points, models, [(key, "the original"), (bar, "95 % interval")])
        return _plot(figure, "size_latency", points, captions.latency(runs, _runs(points)))


def _points(
    runs: Sequence[Run],
    height: Callable[[Run], float | None],
    ends: Callable[[Run], tuple[float | None, float | None]],
) -> Sequence[_Point]:
    """The runs that have both figures, failed ones left out, those at the same place together."""
    places: dict[tuple[Any, ...], list[Run]] = defaultdict(list)
    for run in runs:
        x, y = run.figure("size_ratio"), height(run)
        if run.row.status != "failed" and x is not None and y is not None:
            low, high = (y if end is None else end for end in ends(run))
            places[run.model, run.row.status, x, y, low, high].append(run)
    return [_Point(there, *place[2:]) for place, there in places.items()]


def _closeness_ends(run: Run) -> tuple[float | None, float | None]:
    low, high = (end if end is not None and math.isfinite(end) else None for end in ends(run.row))
    return low, high


def _latency_ends(run: Run) -> tuple[float | None, float | None]:
    return _inverse(run.figure("speedup_high")), _inverse(run.figure("speedup_low"))


def _inverse(value: float | None) -> float | None:
    return 1 / value if value is not None and value > 0 else None


def _runs(points: Sequence[_Point]) -> list[Run]:
    return [run for point in points for run in point.runs]


def _models(points: Sequence[_Point]) -> list[str]:
    return sorted({point.runs[0].model for point in points})


def _colour(models: list[str], model: str) -> str:
    return _SERIES[models.index(model) % len(_SERIES)]


def _marker(models: list[str], model: str) -> str:
    # Another step than the colours', so that the same pair comes back late.
    place = models.index(model)
    return _MARKERS[(place + place // len(_SERIES)) % len(_MARKERS)]


@contextmanager
def _axes(height: str) -> Iterator[tuple[Figure, Axes]]:
    # The salt makes the SVG's ids the same every time, and others than those of another plot on the page.
    settings: dict[Any, str] = {"svg.hashsalt": height, "svg.fonttype": "none", "font.family": "DejaVu Sans"}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes in the PNG; the page has fonts of its own.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=_SIZE, dpi=180, layout="constrained", facecolor=_PAPER)
        axes = figure.add_subplot(facecolor=_PAPER)
        axes.set_xlabel("size, share of the original's", color=_INK)
        axes.set_ylabel(height, color=_INK)
        axes.grid(color=_GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["bottom", "left"]].set_color(_MUTED)
        yield figure, axes


def _limit(
    axes: Axes, points: Sequence[_Point], least: float, further: Sequence[float] = (), ceiling: float = math.inf
) -> None:
    """Limits with room around the points, `least` apart at least where all points are at one height.

    `further` heights are within them too; above `ceiling`, where no point can be, there is hardly any room.
    """
    widths = [point.x for point in points]
    heights = [*further, *(end for point in points for end in (point.low, point.high, point.y))]
    room = max((max(widths) - min(widths)) * 0.12, 0.05)
    axes.set_xlim(max(min(widths) - room, 0), max(widths) + room)
    if min(heights) > 0 and max(heights) > _DECADE * min(heights):
        axes.set_yscale("log")
        axes.set_ylim(min(heights) / 1.3, max(heights) * 1.3)
    else:
        room = max((max(heights) - min(heights)) * 0.1, least / 2)
        bottom, top = min(heights) - room, max(heights) + room
        axes.set_ylim(bottom, min(top, ceiling + 0.05 * (top - bottom)))
    axes.yaxis.set_major_formatter(ScalarFormatter(useOffset=False))
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.tick_params(which="both", colors=_INK, length=0, pad=7)


def _draw_intervals(axes: Axes, points: Sequence[_Point], models: list[str]) -> None:
    faint = 0.15 if len(points) > _MOST_LABELLED else 0.6
    known = [point for point in points if point.low < point.high]
    axes.vlines(
        [point.x for point in known],
        [point.low for point in known],
        [point.high for point in known],
        colors=[_colour(models, point.runs[0].model) for point in known],
        alpha=faint,
        linewidth=1.4,
        zorder=2,
    )


def _draw_front(axes: Axes, best: Sequence[Run], models: list[str]) -> None:
    def group(run: Run) -> tuple[str, ...]:
        return tuple(str(getattr(run.row, column)) for column in ("model", "original_bytes", "data", "examples"))

    for _, members in groupby(sorted(best, key=group), group):
        ordered = sorted(members, key=lambda run: run.row.artifact_bytes or 0)
        x, y = [run.figure("size_ratio") for run in ordered], [run.closeness for run in ordered]
        colour = _colour(models, ordered[0].model)
        axes.step(x, y, where="post", color=colour, alpha=0.6, linewidth=1.4, zorder=2)  # type: ignore[arg-type]


def _draw_points(axes: Axes, points: Sequence[_Point], models: list[str], *, rings: bool) -> None:
    crowded = len(points) > _MOST_LABELLED
    for number, point in enumerate(points):
        first = point.runs[0]
        colour = _colour(models, first.model)
        axes.plot(
            [point.x],
            [point.y],
            linestyle="",
            marker=_marker(models, first.model),
            markersize=5 if crowded else 7,
            markerfacecolor=colour if first.row.status == "ok" else _PAPER,
            markeredgecolor=_INK if rings and point.on_front else colour,
            markeredgewidth=1 if crowded else 1.5,
            zorder=4 if point.on_front else 3,
            gid=f"point-{number}",
        )


def _finish(
    figure: Figure, axes: Axes, points: Sequence[_Point], models: list[str], further: Sequence[tuple[Line2D, str]]
) -> None:
    """The legend, which takes its room from the axes, then the labels in what is left."""
    if not points:
        return
    keys = [(_key(_marker(models, model), _colour(models, model)), shortened(model)) for model in models[:_MOST_NAMED]]
    if len(models) > _MOST_NAMED:
        keys.append((Line2D([], [], linestyle=""), f"and {len(models) - _MOST_NAMED} more"))
    if any(point.runs[0].row.status == "rejected" for point in points):
        keys.append((_key("o", _MUTED, hollow=True), "rejected"))
    keys += further
    lines = [line for line, _ in keys]
    columns = max(1, min(3, _LEGEND_WIDTH // (max(len(name) for _, name in keys) + 6)))
    legend = figure.legend(lines, ["x"] * len(keys), loc="outside upper left", ncols=columns, **_LEGEND)
    for text, (_, name) in zip(legend.get_texts(), keys, strict=True):
        text.set(text=name, color=_INK, parse_math=False)
    figure.draw_without_rendering()  # settles where the axes are, once for the labels and both files
    figure.set_layout_engine("none")
    shown = sorted(points, key=lambda point: (not point.on_front, point.x))
    if len(shown) > _MOST_LABELLED:
        shown = [point for point in shown if point.on_front]
    labels.place(axes, [_labelled(point) for point in shown], [_labelled(point) for point in points], _INK, _PAPER)


def _key(marker: str, colour: str, *, hollow: bool = False) -> Line2D:
    face = _PAPER if hollow else colour
    return Line2D([], [], linestyle="", marker=marker, markersize=7, markerfacecolor=face, markeredgecolor=colour)


def _labelled(point: _Point) -> labels.Labelled:
    return labels.Labelled(point.x, point.y, point.low, point.high, point.label)


def _plot(figure: Figure, name: str, points: Sequence[_Point], words: str) -> Plot:
    drawn, picture = BytesIO(), BytesIO()
    nameless = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(drawn, format="svg", metadata=nameless)
    figure.savefig(picture, format="png", metadata={"Software": None})
    tips = {f"point-{number}": point.tip for number, point in enumerate(points)}
    return Plot(svg.inline(drawn.getvalue(), name, _COLOURS, tips, words), picture.getvalue(), words)
