"""The cells of the matrix: which recipe in which format, and what is expected of each on each original.

A cell that is not named in REFUSED answers as the staged weights do. Where the program changes, change the table here
and write the page again: `PYTHONPATH=.:tests python tests/matrix/matrix_page.py`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

RECIPES = sorted(path.stem for path in (Path(__file__).parents[2] / "conf" / "recipe").glob("*.yaml"))
GRAPHS = {
    "best": "packed_openvino",
    "compact_int8": "packed_openvino",
    "fastest": "openvino",
    "int8_onnx": "onnx",
    "int8_openvino": "openvino",
    "narrow_int8": "openvino",
}
"""The recipes that an engine runs, with the format that each names; all others store weights."""
WEIGHTS = [recipe for recipe in RECIPES if recipe not in GRAPHS]
WEIGHT_FORMATS = ("dense", "packed")
GRAPH_FORMATS = ("openvino", "onnx", "packed_openvino")
ALLOCATED = ("smallest", "best")
"""The recipes whose codes follow from calibration texts: what is expected is what the dense artifact holds."""
BITSANDBYTES = ("int8", "nf4", "balanced", "aggressive", "support_desk")


@dataclass(frozen=True, order=True)
class Cell:
    """A shipped recipe in a format."""

    recipe: str
    format: str

    @property
    def is_graph(self) -> bool:
        """Whether an engine runs it."""
        return self.format in GRAPH_FORMATS

    @property
    def settings(self) -> tuple[str, ...]:
        """As on the command line, where nothing is measured: no gates, and of a search what it starts from."""
        match self.recipe:
            case "smallest" | "smallest_steps" | "best" | "fastest":
                unmeasured = ["~gates.agreement", "~search"]
            case "support_desk":
                unmeasured = ["~gates.agreement", "~gates.size_ratio"]
            case _:
                unmeasured = []
        return (f"recipe={self.recipe}", f"format={self.format}", "evaluation=none", "threads=1", *unmeasured)

    def __str__(self) -> str:
        return f"{self.recipe} format={self.format}"


EVERY = [
    *(Cell(recipe, format) for recipe in WEIGHTS for format in WEIGHT_FORMATS),
    *(Cell(recipe, format) for recipe, format in GRAPHS.items()),
]
"""What is tried of each original: every recipe that stores weights in both of their formats, every other in its own."""
CROSSED = [cell for recipe in RECIPES for format in (*WEIGHT_FORMATS, *GRAPH_FORMATS)
           if (cell := Cell(recipe, format)) not in EVERY]  # fmt: skip
"""The combinations that are left, which are tried of a BERT alone."""


@dataclass(frozen=True)
class Reason:
    """Why a combination is refused: the program's line, with … for what differs from model to model."""

    line: str

    def matches(self, said: str) -> bool:
        """Whether this is what was said, as one line."""
        return re.fullmatch(".+".join(map(re.escape, self.line.split("…"))), said) is not None


@dataclass(frozen=True)
class Refused:
    """Cells that come to `reason` on `originals`."""

    reason: Reason
    originals: Iterable[str]
    cells: Iterable[Cell]


def _cells(*recipes: str, formats: Iterable[str] | None = None) -> list[Cell]:
    return [cell for cell in (*EVERY, *CROSSED) if cell.recipe in recipes and (not formats or cell.format in formats)]


_NO_GRAPH = Reason(
    "format: … runs encoders (sequence-classification, token-classification, question-answering, encoder), not …; "
    "write recipe=compact"
)
_CONSTANT_LENGTH = Reason(
    "format: an … graph of … fails at other numbers of texts and tokens than it was traced with; write recipe=compact"
)
_UNCONVERTED = Reason("openvino: cannot convert …: …; write recipe=compact")
_UNKNOWN_LAYERS = Reason(
    "stages.narrow: it knows no layer of a '…' model among these weights; remove the stage, or choose another recipe"
)
_NO_SETTINGS = Reason("engine: the format … has no settings of its own; remove it")
_NO_LINEAR = Reason(
    "stages.bitsandbytes: no linear layer is left to quantize (…: it is the head); remove the stage, or choose another "
    "recipe"
)
_HALF_OF_IT = Reason(
    "stages.cast: compute: transformers loads parts of '…' in float32 beside …; write compute: float32"
)
_HALF_BESIDE = Reason("stages.cast: compute: transformers loads parts of '…' in float32 beside …; write format=packed")
_UNCALIBRATED = Reason(
    "stages.quantize: allocate: no texts can be calibrated on for …; write recipe=compact, or step: 0.25 in place of "
    "allocate and bits_per_parameter"
)
_READ_SEE_HEAR = ("t5", "bart", "vit", "swin", "resnet", "siglip", "clip", "whisper", "wav2vec2", "hubert")
_WRITE_SEE_HEAR = (
    "gpt2", "llama", "llama-tied", "llama-bfloat16", "qwen2", "qwen3", "phi3", "bloom", "mixtral", "fused", "qwen2-moe",
    "gpt-oss", "t5", "bart", "vit", "swin", "resnet", "siglip", "clip", "whisper", "wav2vec2", "hubert", "masked-lm",
)  # fmt: skip
_CALIBRATED = [recipe for recipe in GRAPHS if recipe != "narrow_int8"]

REFUSED: list[Refused] = [
    Refused(_NO_GRAPH, _WRITE_SEE_HEAR, _cells(*GRAPHS)),
    Refused(_UNCALIBRATED, _READ_SEE_HEAR, _cells("smallest")),
    Refused(_CONSTANT_LENGTH, ["funnel"], _cells(*_CALIBRATED)),
    Refused(_UNCONVERTED, ["llama-classifier"], _cells(*_CALIBRATED, formats=["openvino", "packed_openvino"])),
    Refused(_UNKNOWN_LAYERS, ["albert", "funnel", "xlnet", "llama-classifier"], _cells("narrow_int8")),
    Refused(_NO_LINEAR, ["resnet"], _cells("int8", "nf4")),
    Refused(_NO_SETTINGS, ["bert"], _cells(*GRAPHS, formats=WEIGHT_FORMATS)),
    Refused(_HALF_OF_IT, ["xlnet"], _cells("bf16")),
    Refused(_HALF_BESIDE, ["xlnet"], _cells("balanced", "aggressive", "support_desk", formats=["dense"])),
]


def expected(original: str, cell: Cell) -> Reason | None:
    """Why this cell is refused; None where it answers."""
    found = [each.reason for each in REFUSED if original in each.originals and cell in each.cells]
    assert len(found) < 2, f"{original}, {cell}: two reasons"
    return found[0] if found else None
