"""How much disk an artifact will take, before it is made."""

from optimizer.formats import FORMATS
from optimizer.model.checkpoint import Checkpoint
from optimizer.model.directory import model_files
from optimizer.model.shards import weight_bytes
from optimizer.recipe import Recipe
from optimizer.stages import staging

_MARGIN = 1.1  # scales of rows, what a code takes beyond its entropy
_RECORD = 64 << 10  # manifest, card, recipe.yaml, what config.json gains
_HEADER = 1 << 10  # a tensor's line in its file's header, its place in the manifest, its payload's tables
_LAYOUT = 8 << 10  # what a library stores beside a matrix: tables, a description, each with its own name
_PICKLED_BITS = 32


def artifact_bytes(original: Checkpoint, recipe: Recipe) -> int:
    """An upper bound of the bytes of the artifact's files, near in large models; from outlines alone."""
    format_ = FORMATS[recipe.output.format]
    entries = staging.last(original.outline, recipe.laid(original.outline)).entries.values()
    beside = {shard.output_name for shard in original.modules}  # which no format packs
    bits = sum(entry.values * (entry.plain_bits if entry.file in beside else format_.bits(entry)) for entry in entries)
    around = sum(_HEADER + (_LAYOUT if entry.quantized and entry.quantized.fixed else 0) for entry in entries)
    if recipe.output.also_pt:
        bits += sum(entry.values * max(entry.plain_bits, _PICKLED_BITS) for entry in entries)
        around *= 2
    files = sum(path.stat().st_size for path in model_files(original.root))
    return int(bits / 8 * _MARGIN) + around + _RECORD + files - weight_bytes(original.root)
