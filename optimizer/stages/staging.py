"""The stages of a recipe applied to a checkpoint as a lazy stream; no stage is known here by name."""

import difflib
import fnmatch
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optimizer.errors import RecipeError
from optimizer.model.checkpoint import Checkpoint, Shard
from optimizer.model.weight import ROLES, Place, Weight
from optimizer.settings import nearest
from optimizer.stages.stage import Context, Step, Transform


@dataclass(frozen=True)
class Staged:
    """A checkpoint with its stages ready: each call of `stream` is a fresh pass over one weight file's outcome.

    `config` is what the stages change in config.json (None removes a key).
    """

    checkpoint: Checkpoint
    transforms: tuple[tuple[frozenset[str], Transform], ...]
    config: Mapping[str, Any]

    def stream(self, shard: Shard) -> Iterator[Weight]:
        """The weights of one file as they are to be stored."""
        for weight in self.checkpoint.weights_of(shard):
            yield from _through(weight, self.transforms)


def routes(steps: Iterable[Step], places: Mapping[str, Place]) -> list[Mapping[str, Place]]:
    """The places of the weights that each step is for; reads nothing.

    Raises RecipeError for a pattern or a role that matches no weight, and for a step left without any.
    """
    return [_route(step, places) for step in steps]


def prepare(checkpoint: Checkpoint, steps: Sequence[Step], output_format: str, log: Callable[[str], None]) -> Staged:
    """Ready every stage in turn; one that needs figures of the whole model reads the outcome of those before it."""
    transforms: list[tuple[frozenset[str], Transform]] = []
    config: dict[str, Any] = {}
    as_stored = output_format == "dense" and any(step.stage.loads_as_stored for step in steps)
    for step, routed in zip(steps, routes(steps, checkpoint.places), strict=True):
        names = frozenset(routed)
        earlier = tuple(transforms)

        def weights(names: frozenset[str] = names, earlier: Any = earlier) -> Iterator[Weight]:
            for weight in checkpoint.weights():
                if weight.name in names:
                    yield from _through(weight, earlier)

        prepared = step.stage.prepare(weights, Context(checkpoint.model, routed, as_stored, log))
        log(f"{step.label}: {step.stage.kind} on {len(names)} of {len(checkpoint.places)} weights")
        transforms.append((names, prepared.transform))
        config.update(prepared.config)
    return Staged(checkpoint, tuple(transforms), config)


def _through(weight: Weight, transforms: tuple[tuple[frozenset[str], Transform], ...]) -> Iterable[Weight]:
    weights = [weight]
    for names, transform in transforms:
        weights = [
            after
            for before in weights
            for after in (transform(before) if before.role is not None and before.name in names else (before,))
        ]
    return weights


def _route(step: Step, places: Mapping[str, Place]) -> Mapping[str, Place]:
    where, routing = f"stages.{step.label}", step.routing
    for key in ("only", "skip"):
        for pattern in getattr(routing, key):
            if not fnmatch.filter(places, pattern):
                raise RecipeError(f"{where}.{key}: '{pattern}' matches no weight; {_nearest(pattern, list(places))}")
    present = {place.role for place in places.values()}
    for role in routing.roles or ():
        if role not in present:
            there = ", ".join(role for role in ROLES if role in present)
            raise RecipeError(f"{where}.roles: this model has no {role} weight; it has: {there}")
    matched = {name: place for name, place in places.items() if _matches(name, routing.only, routing.skip)}
    routed = {name: place for name, place in matched.items() if place.role in step.roles}
    if not matched:
        raise RecipeError(f"{where}: is left without a weight: its patterns leave none; change its patterns")
    if not routed:
        others = ", ".join(sorted({place.role for place in matched.values()}))
        raise RecipeError(
            f"{where}: is left without a weight: those matched are {others} and its roles are "
            f"{', '.join(step.roles)}; write {where}.roles=[{others}] or change its patterns"
        )
    return routed


def _matches(name: str, only: list[str], skip: list[str]) -> bool:
    if only and not any(fnmatch.fnmatchcase(name, pattern) for pattern in only):
        return False
    return not any(fnmatch.fnmatchcase(name, pattern) for pattern in skip)


def _nearest(pattern: str, names: list[str]) -> str:
    """The nearest name, else few enough of them to print."""
    few = names if len(names) < 9 else [*names[:4], *names[-4:]]
    return nearest(pattern, difflib.get_close_matches(pattern, names, n=1) or few)
