"""The stages of a recipe laid over an outline, and applied to a checkpoint as a lazy stream; none is known by name."""

import difflib
import fnmatch
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import torch

from optimizer.calibration.statistics import Statistics, statistics
from optimizer.errors import NothingToDo, RecipeError, StageError
from optimizer.model import internals
from optimizer.model.checkpoint import Checkpoint
from optimizer.model.examples import Examples
from optimizer.model.outline import Outline, sketch
from optimizer.model.shards import Shard
from optimizer.model.weight import ROLES, Place, Weight
from optimizer.settings import nearest
from optimizer.stages.finite import check_original, check_staged
from optimizer.stages.stage import Context, Step, Transform

Keep = Callable[[Callable[[], Statistics]], Statistics]
"""What gives the statistics that a function computes, from where they are kept if they are."""


def computed(compute: Callable[[], Statistics]) -> Statistics:
    """The Keep that keeps nothing."""
    return compute()


Transforms = tuple[tuple[str, frozenset[str], Transform], ...]
"""Each with the label of its step, and the names of the weights that go through it."""


@dataclass(frozen=True)
class Staged:
    """An original with its stages ready: each call of `stream` is a fresh pass over one weight file's outcome.

    `record` is the recipe that made it, as a recipe file's keys, `packages` what its stages need installed; `name` is
    what the original goes by, `outline` what the stages leave of it. `allow_nonfinite` are patterns of the weights that
    may hold NaN or infinity.
    """

    record: Mapping[str, Any]
    packages: tuple[str, ...]
    name: str
    original: Checkpoint
    outline: Outline
    transforms: Transforms
    allow_nonfinite: tuple[str, ...] = ()

    def stream(self, shard: Shard) -> Iterator[Weight]:
        """The weights of one file as they are to be stored.

        Raises ModelError for one of the original's that is not finite, StageError for one that a stage leaves so.
        """
        for weight in self.original.weights_of(shard):
            check_original(weight, self.allow_nonfinite)
            yield from _through(weight, self.transforms, self.allow_nonfinite)

    def materialise(self) -> Any:
        """A torch model that holds the weights as staged, codes restored, in float32; the whole of it is in memory."""
        state: dict[str, torch.Tensor] = {}
        for shard in self.original.shards:
            for weight in self.stream(shard):
                tensor = weight.tensor
                state[weight.name] = tensor.float() if tensor.is_floating_point() else tensor
        config = {key: value for key, value in self.outline.config.items() if key != "quantization_config"}
        return internals.from_state(self.original.model, config, state)


@dataclass(frozen=True)
class Laid:
    """A step over the outline that earlier ones left: the weights it is for, and what it leaves.

    `left_out` says why an optional step has nothing to do, None where it has.
    """

    step: Step
    before: Outline
    routed: Mapping[str, Place]
    after: Outline
    left_out: str | None = None

    @property
    def altered(self) -> frozenset[str]:
        """The weights with other facts in the outline that it leaves, those among them that it is not for."""
        left = self.after.entries
        return frozenset(name for name, entry in self.before.entries.items() if left.get(name) != entry)

    @property
    def changed(self) -> int:
        """How many weights it changes: those with other facts in the outline, or all that it is for."""
        return len(self.altered.intersection(self.routed)) or len(self.routed)


def lay(outline: Outline, steps: Iterable[Step]) -> list[Laid]:
    """Every step in turn over what the earlier ones leave of an outline; reads nothing.

    Raises RecipeError for a pattern or a role that matches no weight, and for a step left without any; StageError for
    a stage that does not fit the model, or what others leave of it. An optional step that finds nothing is left out.
    """
    return _lay(outline, steps, _route)


def check(steps: Sequence[Step], casts: bool) -> None:
    """Raise RecipeError for steps that fit no model; `casts` as for an Outline."""

    def by_role(step: Step, places: Mapping[str, Place]) -> Mapping[str, Place]:
        return {name: place for name, place in places.items() if place.role in step.roles}

    try:
        _lay(replace(sketch(), casts=casts), steps, by_role)
    except StageError as error:
        raise RecipeError(str(error)) from None


def last(outline: Outline, laid: Sequence[Laid]) -> Outline:
    """What all steps leave of an outline."""
    return laid[-1].after if laid else outline


def prepare(
    original: Checkpoint,
    name: str,
    steps: Sequence[Step],
    record: Mapping[str, Any],
    casts: bool,
    log: Callable[[str], None],
    examples: Callable[[], Examples] | None = None,
    allow_nonfinite: tuple[str, ...] = (),
    keep: Keep = computed,
) -> Staged:
    """Ready every stage in turn; one that needs figures of the whole model reads the outcome of those before it.

    `record`, `name` and `allow_nonfinite` as for a Staged, `casts` as for an Outline, `examples` as for a Context; none
    of the steps is to be left out. `keep` may give statistics of the original that were computed before.
    """
    outline = replace(original.outline, casts=casts)
    laid = lay(outline, steps)
    packages = tuple(package for step in steps for package in step.stage.packages)
    transforms: Transforms = ()
    for each in laid:
        names = frozenset(each.routed)
        altered = names | each.altered
        as_named = original.outline.entries.keys() == each.before.entries.keys()

        def weights(
            names: frozenset[str] = names, earlier: Transforms = transforms, as_named: bool = as_named
        ) -> Iterator[Weight]:
            for weight in original.weights():
                if weight.name in names or not as_named:
                    through = _through(weight, earlier, allow_nonfinite)
                    yield from (after for after in through if after.name in names)

        so_far = Staged(record, packages, name, original, each.before, transforms, allow_nonfinite)
        texts = examples or _none(each.step)
        known = _known(so_far, texts, keep)
        context = Context(each.before, each.routed, log, so_far.materialise, texts, known)
        transform = each.step.stage.prepare(weights, context)
        log(f"{each.step.label}: {each.step.stage.kind} on {each.changed} of {len(each.before.places)} weights")
        transforms = (*transforms, (each.step.label, altered, transform))
    return Staged(record, packages, name, original, last(outline, laid), transforms, allow_nonfinite)


def _known(so_far: Staged, examples: Callable[[], Examples], keep: Keep) -> Callable[[], Statistics]:
    """The statistics of the model that a stage finds: of the original where it is the first, which may be known."""

    def compute() -> Statistics:
        return statistics(so_far.materialise(), so_far.outline.task, examples())

    return compute if so_far.transforms else lambda: keep(compute)


def _none(step: Step) -> Callable[[], Examples]:
    """In place of calibration texts, where a stage is run without."""

    def examples() -> NoReturn:
        raise StageError(f"stages.{step.label}: needs calibration texts; write data.calibration=FILE")

    return examples


Route = Callable[[Step, Mapping[str, Place]], Mapping[str, Place]]


def _lay(outline: Outline, steps: Iterable[Step], route: Route) -> list[Laid]:
    found: list[Laid] = []
    made_by: dict[str, Step] = {}
    for step in steps:
        laid = _laid(step, outline, route, made_by)
        after = laid.after
        made_by |= {name: step for name in laid.routed if _is_code(after, name) and not _is_code(outline, name)}
        found.append(laid)
        outline = after
    for step in steps:
        with _of(step):
            step.stage.check(outline)
    return found


def _laid(step: Step, outline: Outline, route: Route, made_by: Mapping[str, Step]) -> Laid:
    if step.is_optional and not any(place.role in step.roles for place in outline.places.values()):
        return Laid(step, outline, {}, outline, f"this model has no {' or '.join(step.roles)} weight")
    routed = route(step, outline.places)
    if step.stage.needs_floats:
        _check_floats(step, routed, made_by)
    try:
        with _of(step):
            return Laid(step, outline, routed, step.stage.outline(outline, routed))
    except NothingToDo as error:
        if step.is_optional:
            return Laid(step, outline, {}, outline, str(error))
        raise StageError(f"stages.{step.label}: {error}; remove the stage, or choose another recipe") from None


@contextmanager
def _of(step: Step) -> Iterator[None]:
    """Say of which step a StageError is."""
    try:
        yield
    except NothingToDo:
        raise
    except StageError as error:
        raise StageError(f"stages.{step.label}: {error}") from None


def _is_code(outline: Outline, name: str) -> bool:
    return name in outline.entries and outline.entries[name].quantized is not None


def _check_floats(step: Step, routed: Iterable[str], made_by: Mapping[str, Step]) -> None:
    for name in routed:
        if name in made_by:
            earlier = made_by[name]
            raise StageError(
                f"stages.{step.label}: {step.stage.kind} cannot follow {earlier.stage.kind}, which leaves integer "
                f"codes; write {step.label} before {earlier.label}"
            )


def _through(weight: Weight, transforms: Transforms, allow_nonfinite: Sequence[str]) -> Iterable[Weight]:
    weights = [weight]
    for label, names, transform in transforms:
        weights = [
            after
            for before in weights
            for after in (
                _checked(transform, before, label, allow_nonfinite)
                if before.role is not None and before.name in names
                else (before,)
            )
        ]
    return weights


def _checked(transform: Transform, before: Weight, label: str, allow_nonfinite: Sequence[str]) -> Iterator[Weight]:
    for after in transform(before):
        check_staged(after, label, before, allow_nonfinite)
        yield after


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
