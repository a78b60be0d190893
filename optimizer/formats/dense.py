"""The dense format: every tensor as it is, which transformers reads without this package."""

from optimizer.formats.safetensors import Safetensors
from optimizer.model.outline import Entry


class Dense(Safetensors):
    """Plain safetensors; codes are restored, but for those that another library reads."""

    name = "dense"
    how_to_load = "The format is `dense`: plain `from_pretrained` loads it as well, without this package."
    casts = False

    def bits(self, entry: Entry) -> float:
        """Those of its dtype; those of codes only where another library reads them."""
        return entry.quantized.bits if entry.quantized and entry.quantized.fixed else entry.plain_bits
