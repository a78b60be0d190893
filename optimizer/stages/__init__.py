"""The stages: one file each, and the one table that names them."""

from optimizer.stages.bitsandbytes import Bitsandbytes
from optimizer.stages.cast import Cast
from optimizer.stages.drop_layers import DropLayers
from optimizer.stages.narrow import Narrow
from optimizer.stages.prune import Prune
from optimizer.stages.quantize import Quantize
from optimizer.stages.stage import Stage
from optimizer.stages.threshold import Threshold

STAGES: dict[str, type[Stage]] = {
    stage.kind: stage for stage in (Bitsandbytes, Cast, DropLayers, Narrow, Prune, Quantize, Threshold)
}

KNOBS: dict[str, type[Stage]] = {stage.knob.name: stage for stage in STAGES.values() if stage.knob is not None}
"""The stage that each knob is for."""
