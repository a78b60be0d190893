"""The stages: one file each, and the one table that names them."""

from optimizer.stages.bitsandbytes import Bitsandbytes
from optimizer.stages.cast import Cast
from optimizer.stages.prune import Prune
from optimizer.stages.quantize import Quantize
from optimizer.stages.threshold import Threshold

STAGES: dict[str, type[Bitsandbytes | Cast | Prune | Quantize | Threshold]] = {
    stage.kind: stage for stage in (Bitsandbytes, Cast, Prune, Quantize, Threshold)
}
