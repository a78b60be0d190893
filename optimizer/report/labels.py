"""Labels beside points, none over another or over a point; what finds no room is left out."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.path import Path
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

_AWAY = 7  # points
_ROOM = 2  # points between labels
_MARKER = 5  # points, half a marker's width
_MOST_CROSSED = 3  # lines and intervals under one label
_PLACES = ((1, 0), (-1, 0), (0.8, 0.8), (-0.8, 0.8), (0.8, -0.8), (-0.8, -0.8), (0, 1.4), (0, -1.4))


@dataclass(frozen=True)
class Labelled:
    """A point's place and interval, in the axes' units, and its label."""

    x: float
    y: float
    low: float
    high: float
    label: str


def place(
    axes: Axes, points: Sequence[Labelled], obstacles: Sequence[Labelled], ink: str, paper: str
) -> list[Annotation]:
    """Write the labels of `points`, the first ones first, keeping clear of the markers of `obstacles`.

    They keep clear of lines and intervals too where they can. The figure's layout must be settled.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    inside = axes.get_window_extent(renderer)
    pixels = figure.dpi / 72
    taken = [_marker(axes, point, pixels) for point in obstacles]
    lines = [line.get_path().transformed(line.get_transform()) for line in axes.lines if line.get_linestyle() != "None"]
    lines += [_interval(axes, point) for point in obstacles]
    written = []
    for point in points:
        free: list[tuple[int, Annotation, Bbox]] = []
        for right, up in _PLACES:
            text = _annotate(axes, point, right, up, ink, paper)
            box = text.get_window_extent(renderer)
            text.remove()
            crossed = sum(line.intersects_bbox(box, filled=False) for line in lines)
            if crossed <= _MOST_CROSSED and _is_within(box, inside) and not box.count_overlaps(taken):
                free.append((crossed, text, box))
        if free:
            _, text, box = min(free, key=lambda candidate: candidate[0])
            axes.add_artist(text)
            taken.append(box.padded(_ROOM * pixels))
            written.append(text)
    return written


def _annotate(axes: Axes, point: Labelled, right: float, up: float, ink: str, paper: str) -> Annotation:
    return axes.annotate(
        point.label,
        (point.x, point.y),
        (right * _AWAY, up * _AWAY),
        textcoords="offset points",
        ha="left" if right > 0 else "right" if right < 0 else "center",
        va="bottom" if up > 0 else "top" if up < 0 else "center",
        color=ink,
        bbox={"boxstyle": "square,pad=0.1", "facecolor": paper, "edgecolor": "none", "alpha": 0.75},
        fontsize=9,
        parse_math=False,
        zorder=5,
    )


def _marker(axes: Axes, point: Labelled, pixels: float) -> Bbox:
    x, y = axes.transData.transform((point.x, point.y))
    half = _MARKER * pixels
    return Bbox([[x - half, y - half], [x + half, y + half]])


def _interval(axes: Axes, point: Labelled) -> Path:
    return Path(axes.transData.transform([(point.x, point.low), (point.x, point.high)]))


def _is_within(box: Bbox, other: Bbox) -> bool:
    return bool(box.x0 >= other.x0 and box.x1 <= other.x1 and box.y0 >= other.y0 and box.y1 <= other.y1)
