"""What a figure is: what it is called, which way is better, how it is shown, what must be there to measure it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Better = Literal["more", "less"]

Need = Literal[
    "examples",
    "repetitions",
    "labels",
    "decision",
    "logits",
    "class",
    "set",
    "text label",
    "number",
    "vector",
    "order",
    "tags",
    "spans",
    "text",
    "heard",
    "group",
]
"""`examples` and `repetitions` of the evaluation; `labels` and `group` of the texts; the others of the model."""

Range = Mapping[str, float]
"""The bounds that a figure itself has, as pydantic.Field takes them: ge, gt, le."""

NO_ENDS: Range = {}
SHARE: Range = {"ge": 0, "le": 1}
CORRELATION: Range = {"ge": -1, "le": 1}
NOT_NEGATIVE: Range = {"ge": 0}
POSITIVE: Range = {"gt": 0}


@dataclass(frozen=True)
class Figure:
    """What the rest of the program knows of a column that measures something.

    One that is `better` more or less can be a gate, within its `range`, where all that it `needs` is there; `at_best`
    names the column that a gate goes by in its place, the end of its interval. What is not `gated` is no gate, and only
    held against the figure of another run. `title` is what a card's results call
    it, None for one that they leave out; `pattern` is how it is shown.
    """

    better: Better | None = None
    range: Range = field(default_factory=lambda: NO_ENDS)
    needs: tuple[Need, ...] = ()
    title: str | None = None
    pattern: str = "{:.4f}"
    at_best: str | None = None
    gated: bool = True
