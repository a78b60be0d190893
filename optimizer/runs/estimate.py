"""How much disk an artifact will take, before it is made."""

import math

from optimizer.model.checkpoint import Checkpoint, model_files, weight_bytes
from optimizer.recipe import Recipe
from optimizer.stages import staging

_MARGIN = 1.1  # scales, headers, layers that a stage must leave alone
_PICKLED_BITS = 32


def artifact_bytes(checkpoint: Checkpoint, recipe: Recipe) -> int:
    """About how many bytes the artifact's files will take, rather too many; from the original's headers alone."""
    total = sum(math.prod(shape) for shard in checkpoint.shards for shape in shard.shapes.values())
    weights = weight_bytes(checkpoint.directory)
    as_stored = 8 * weights / max(total, 1)
    routes = staging.routes(recipe.steps, checkpoint.places)
    bits = 0.0
    for shard in checkpoint.shards:
        for name, shape in shard.shapes.items():
            each = as_stored
            for step, routed in zip(recipe.steps, routes, strict=True):
                if name in routed:
                    each = step.stage.stored_bits(each, recipe.output.format)
            bits += each * math.prod(shape)
    if recipe.output.also_pt:
        bits += _PICKLED_BITS * total
    others = sum(path.stat().st_size for path in model_files(checkpoint.directory)) - weights
    return int(bits / 8 * _MARGIN) + others
