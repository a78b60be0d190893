"""What comes of the cells of one original: made as a command makes them, asked in another process, compared."""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from matrix_answers import Inputs, answer, answers, dense_beside
from matrix_cells import ALLOCATED, BITSANDBYTES, GRAPHS, Cell
from matrix_staged import CHANGES, Change, encoder, options, staged, staged_dense
from torch import Tensor

import optimizer
from optimizer.artifact.write import write
from optimizer.errors import OptimizerError
from optimizer.processes import process
from optimizer.recipe import parse
from optimizer.runs.calibrating import calibrated
from optimizer.runs.plan import plan
from optimizer.runs.source import Sources
from tests.conftest import WORDS

_SAME = 1e-4
"""How far answers may be from those expected, as a share of the largest: here they are equal to the last bit."""
_GRAPH = 0.3
"""The same in root mean squares, where a graph computes in 8 bits what no training has prepared for it."""
_TEXTS = 24


def outcomes(original: Path, cells: Sequence[Cell], inputs: Inputs, scratch: Path) -> dict[Cell, str | None]:
    """For each cell why it does not answer as the staged weights do, in a line; None where it does."""
    make = _maker(original, scratch)
    made = {cell: make(_recipe(cell)) for cell in cells}
    artifacts = {str(cell): place for cell, place in made.items() if isinstance(place, Path)}
    said = process.call(answers, artifacts, dict(inputs))

    @cache
    def expected(weights: Path, changes: tuple[Change, ...], options: str) -> Tensor:
        place = scratch / "staged" / f"{expected.cache_info().misses}"
        model = staged(encoder(weights), changes, json.loads(options), place)
        return answer(model, inputs, staged_dense(dense_beside(weights), changes))

    found: dict[Cell, str | None] = {}
    for cell, place in made.items():
        if isinstance(place, str):
            found[cell] = place
        else:
            follows = cell.recipe in ("narrow_int8", *ALLOCATED)
            weights = make(_recipe(cell, staged_only=True)) if follows else original
            assert isinstance(weights, Path), weights
            how = options(place)
            if cell.is_graph and cell.recipe in BITSANDBYTES:  # a graph names no layers, but holds what they restore to
                dense = make(_recipe(Cell(cell.recipe, "dense")))
                assert isinstance(dense, Path), dense
                how |= {"quantization_config": options(dense)["quantization_config"]}
            wanted = expected(weights, CHANGES[cell.recipe], json.dumps(how))
            found[cell] = _verdict(cell, original, place, said[str(cell)], wanted)
    return found


def _maker(original: Path, scratch: Path) -> Callable[[dict[str, Any]], Path | str]:
    """What makes the artifact of a recipe for this original, or says why it does not.

    It is what a command does for each of its runs, but that all of them are in this process, which imports each engine
    once, and that nothing is measured.
    """
    draw = random.Random(0)
    texts = scratch / "texts.txt"
    texts.write_text("\n".join(" ".join(draw.choices(WORDS, k=draw.randint(3, 12))) for _ in range(_TEXTS)))
    of_it = {"model": {"path": str(original)}, "data": {"calibration": str(texts)}}
    sources = Sources()

    def make(recipe: dict[str, Any]) -> Path | str:
        try:
            run = plan(parse(recipe | of_it), sources)
            source, environment = run.source, run.recipe.environment
            texts = calibrated(source.calibration, source.checkpoint, environment) if source.calibration else None
            staged = run.recipe.staged(source.checkpoint, "model", _unheard, texts.examples if texts else None)
            place = scratch / "out" / run.run_id
            if not place.exists():
                write(staged, place, threads=environment.threads, calibration=texts)
        except OptimizerError as error:
            return str(error).replace(str(original), original.name)
        return place

    return make


def _unheard(line: str) -> None:
    """Where a run's log would be."""


@cache
def _recipe(cell: Cell, *, staged_only: bool = False) -> dict[str, Any]:
    """What a cell's settings compose to; or the weights that its stages leave, in the dense format."""
    settings = [*cell.settings, "format=dense", *(["~engine"] if cell.recipe in GRAPHS else [])]
    return optimizer.compose(*(settings if staged_only else cell.settings))


def _verdict(cell: Cell, original: Path, artifact: Path, answered: Any, expected: Tensor) -> str | None:
    if isinstance(answered, str):
        return f"does not load or answer: {answered}"
    if lost := list(_lost(original, artifact)):
        return f"lacks files of the original: {', '.join(lost)}"
    assert expected.isfinite().all()
    said = torch.tensor(answered)
    if said.shape != expected.shape:
        return f"answers {list(said.shape)} instead of {list(expected.shape)}"
    if cell.is_graph:
        far, bound = ((said - expected).square().mean() / expected.square().mean()).sqrt().item(), _GRAPH
    else:
        far, bound = ((said - expected).abs().max() / expected.abs().max()).item(), _SAME
    return None if far <= bound else f"answers differ by {far:.1g} of their size"


def _lost(original: Path, artifact: Path) -> Iterator[str]:
    """The original's files that the artifact lacks, but for its model's weights, which may be stored otherwise.

    What is in the folder of an older sentence-transformers model is in the root of its artifact.
    """
    model = encoder(original)
    for path in sorted(original.rglob("*")):
        stands_for = path.relative_to(model if path.is_relative_to(model) else original)
        is_weights = path.parent == model and "safetensors" in path.name
        if path.is_file() and not is_weights and not (artifact / stands_for).exists():
            yield str(stands_for)
