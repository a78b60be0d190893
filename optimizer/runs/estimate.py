"""How much disk an artifact will take, before it is made."""

from optimizer.formats import FORMATS
from optimizer.model.checkpoint import Checkpoint, model_files, weight_bytes
from optimizer.recipe import Recipe
from optimizer.stages import staging

_MARGIN = 1.1  # scales, headers, layers that a stage must leave alone
_PICKLED_BITS = 32


def artifact_bytes(original: Checkpoint, recipe: Recipe) -> int:
    """About how many bytes the artifact's files will take, rather too many; from outlines alone."""
    format_ = FORMATS[recipe.output.format]
    entries = staging.last(original.outline, recipe.laid(original.outline)).entries.values()
    bits = sum(entry.values * format_.bits(entry) for entry in entries)
    if recipe.output.also_pt:
        bits += _PICKLED_BITS * sum(entry.values for entry in entries)
    files = sum(path.stat().st_size for path in model_files(original.directory))
    return int(bits / 8 * _MARGIN) + files - weight_bytes(original.directory)
