"""Make an artifact at a path of the caller's choice, even in the place of the original itself."""

from collections.abc import Callable
from pathlib import Path

from optimizer.artifact.building import check_free
from optimizer.artifact.exchange import kept_name, recover
from optimizer.artifact.write import write
from optimizer.errors import ArtifactError
from optimizer.model.checkpoint import open_checkpoint
from optimizer.model.locate import locate
from optimizer.recipe import Recipe


def optimize_to(recipe: Recipe, output: Path | None, say: Callable[[str], None]) -> Path:
    """Write the recipe's artifact to `output` and return its path; without one it takes the original's place.

    An original that is replaced is kept beside it under a name that `say` is told. Raises ArtifactError when `output`
    holds anything but an artifact.
    """
    place = Path(output or recipe.model.path).expanduser().resolve()
    if not place.name:
        raise ArtifactError(f"{place}: is the root of the file system; write a folder below it")
    if recovered := recover(place):
        say(recovered)
    original = locate(recipe.model)
    keep = kept_name(place) if place == original.directory else None
    if keep is None:
        check_free(place)
    checkpoint = open_checkpoint(original.directory)
    staged = recipe.staged(checkpoint, original.name, say)
    alone = recipe.remainder(checkpoint.outline)
    write(staged, place, keep, recipe.environment.threads, alone=alone, commit=original.commit)
    if keep:
        say(f"the original is kept as {keep}")
    return place
