"""Stages for tests that do what no stage should; their processes find them under this module's name."""

import os
import resource
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from optimizer.model.weight import Role, Weights
from optimizer.settings import Settings
from optimizer.stages.stage import Context, Prepared, Stage


class Hostile(Settings):
    """What they have in common."""

    default_roles: ClassVar[tuple[Role, ...]] = ("linear",)
    makes_codes: ClassVar[bool] = False
    needs_floats: ClassVar[bool] = True
    loads_as_stored: ClassVar[bool] = False

    def conflict(self, others: Sequence[Stage], output_format: str) -> str | None:
        return None

    def stored_bits(self, bits: float, output_format: str) -> float:
        return bits


class Die(Hostile):
    """Kills its process, as the system does when memory runs out."""

    kind: ClassVar[str] = "die"
    amount: float = 0.0

    def prepare(self, weights: Weights, context: Context) -> Prepared:
        if self.amount == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return Prepared(lambda weight: [weight])


class Fail(Hostile):
    """Has a bug."""

    kind: ClassVar[str] = "fail"

    def prepare(self, weights: Weights, context: Context) -> Prepared:
        raise ZeroDivisionError("division by zero\nand more")


class Wait(Hostile):
    """Leaves a note that it is there, and waits for its end until another is at `go`."""

    kind: ClassVar[str] = "wait"
    note: str
    go: str

    def prepare(self, weights: Weights, context: Context) -> Prepared:
        Path(self.note).write_text(str(os.getpid()))
        while not Path(self.go).exists():
            time.sleep(0.02)
        return Prepared(lambda weight: [weight])


class Full(Hostile):
    """Lets the system refuse to write more, until there is something at `go`."""

    kind: ClassVar[str] = "full"
    go: str

    def prepare(self, weights: Weights, context: Context) -> Prepared:
        if not Path(self.go).exists():
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        return Prepared(lambda weight: [weight])


STAGES = {stage.kind: stage for stage in (Die, Fail, Wait, Full)}
