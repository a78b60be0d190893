"""Whole layers left out, the others numbered anew: a smaller model, which whatever loads the original loads."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from pydantic import Field, NonNegativeInt

from optimizer.errors import NothingToDo, StageError
from optimizer.model.outline import Entry, Outline
from optimizer.model.weight import ROLES, Place, Role, Weight, Weights
from optimizer.stages.stage import Context, Stage, Transform

_COUNTS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers")


class DropLayers(Stage):
    """Leaves out the `layers` of these numbers, from 0 on; the answers decide which, so compare or search over them.

    Not of models whose layers differ, or that have more than one row of them.
    """

    kind: ClassVar[str] = "drop_layers"
    default_roles: ClassVar[tuple[Role, ...]] = ROLES
    needs_floats: ClassVar[bool] = False
    only_removes: ClassVar[bool] = True

    layers: list[NonNegativeInt] = Field(default_factory=list)

    def outline(self, before: Outline, routed: Mapping[str, Place]) -> Outline:
        """Fewer layers, in config.json too."""
        if not before.config or not self.layers:
            return before
        row = _row(before)
        if unknown := sorted(set(self.layers).difference(range(row.count))):
            raise StageError(f"layers: {unknown[0]} is none of its {row.count}, 0 to {row.count - 1}; write another")
        if len(set(self.layers)) == row.count:
            raise StageError("layers: are all that it has; leave one")
        if missed := [name for name, place in before.places.items() if name not in routed and row.number(place.module)]:
            raise StageError(f"only, skip and roles keep '{missed[0]}' back, but a layer goes whole; remove them")
        moves = self._moves(row)
        entries = (_moved(entry, row, moves) for entry in before.entries.values())
        linear = {moved: reason for module, reason in before.linear.items()
                  if (moved := row.moved(module, moves)) is not None}  # fmt: skip
        after = replace(before, entries={entry.name: entry for entry in entries if entry is not None}, linear=linear)
        # Lists with a value for each layer lose theirs.
        lists = {key: [value[layer] for layer in moves] for key, value in before.config.items()
                 if isinstance(value, list) and len(value) == row.count and key.startswith("layer")}  # fmt: skip
        return after.with_config(**{row.key: len(moves)}, **lists)

    def leaves_alone(self, before: Outline, routed: Mapping[str, Place]) -> Mapping[str, str]:
        """The layers that stay, and what belongs to none."""
        if not before.config or not self.layers:
            return dict.fromkeys(routed, "its layer stays")
        row, gone = _row(before), set(map(str, self.layers))
        return {name: "its layer stays" for name, place in routed.items() if row.number(place.module) not in gone}

    def prepare(self, weights: Weights, context: Context) -> Transform:
        """Needs no pass over the weights."""
        if not self.layers:
            return lambda weight: [weight]
        row = _row(context.outline)
        moves = self._moves(row)
        context.log(f"drop_layers: {row.count - len(moves)} of {row.count} layers left out")

        def transform(weight: Weight) -> Iterable[Weight]:
            module = row.moved(weight.module or "", moves)
            return [] if module is None else [replace(weight, name=row.named(weight.name, moves), module=module)]

        return transform

    def _moves(self, row: "_Row") -> dict[int, int]:
        """The new number of each layer that stays."""
        stay = [number for number in range(row.count) if number not in self.layers]
        return {number: place for place, number in enumerate(stay)}


@dataclass(frozen=True)
class _Row:
    """The one row of layers of a model: `path` of the module that holds them, `key` of their `count` in config.json."""

    path: str
    key: str
    count: int

    def number(self, module: str) -> str | None:
        """The number of the layer that a module belongs to, None if it belongs to none."""
        found = re.match(rf"{re.escape(self.path)}\.(\d+)(\.|$)", module)
        return None if found is None else found[1]

    def moved(self, module: str, moves: Mapping[int, int]) -> str | None:
        """The path of a module once the layers are numbered anew, None if it is gone."""
        number = self.number(module)
        if number is None:
            return module
        after = moves.get(int(number))
        return None if after is None else f"{self.path}.{after}{module[len(self.path) + 1 + len(number) :]}"

    def named(self, name: str, moves: Mapping[int, int]) -> str:
        """A weight's new name in the checkpoint, which may begin otherwise than its module's path."""
        last = re.escape(self.path.rpartition(".")[2])
        return re.sub(
            rf"((?:^|\.){last}\.)(\d+)(?=\.)", lambda found: found[1] + str(moves[int(found[2])]), name, count=1
        )


def _row(before: Outline) -> _Row:
    """Raises NothingToDo for a model that has no such row of layers, StageError for one whose layers differ."""
    key = next((key for key in _COUNTS if isinstance(before.config.get(key), int)), None)
    numbered: dict[str, dict[int, set[Any]]] = {}
    for entry in before.entries.values():
        if entry.place is not None and (found := re.match(r"(.+?)\.(\d+)\.", entry.place.parameter)):
            inside = entry.place.parameter[found.end() :], entry.shape
            numbered.setdefault(found[1], {}).setdefault(int(found[2]), set()).add(inside)
    count = 0 if key is None else int(before.config[key])
    rows = [path for path, layers in numbered.items() if set(layers) == set(range(count))]
    if key is None or len(rows) != 1:
        raise NothingToDo(f"it knows no row of layers of a '{before.config.get('model_type')}' model")
    first, *others = numbered[rows[0]].values()
    if any(other != first for other in others):
        raise StageError("the layers of this model differ, so none can stand in another's place; remove the stage")
    return _Row(rows[0], key, count)


def _moved(entry: Entry, row: _Row, moves: Mapping[int, int]) -> Entry | None:
    if entry.place is None:
        return entry
    module = row.moved(entry.place.module, moves)
    if module is None:
        return None
    parameter = row.named(entry.place.parameter, moves)
    return replace(
        entry, name=row.named(entry.name, moves), place=replace(entry.place, module=module, parameter=parameter)
    )
