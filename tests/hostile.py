"""Stages for tests that do what no stage should; their processes find them under this module's name."""

import os
import resource
import signal
import time
from pathlib import Path
from typing import ClassVar

from optimizer.model.weight import Weights
from optimizer.stages.stage import Context, Stage, Transform


class Die(Stage):
    """Kills its process, as the system does when memory runs out."""

    kind: ClassVar[str] = "die"
    amount: float = 0.0

    def prepare(self, weights: Weights, context: Context) -> Transform:
        if self.amount == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return lambda weight: [weight]


class Fail(Stage):
    """Has a bug."""

    kind: ClassVar[str] = "fail"

    def prepare(self, weights: Weights, context: Context) -> Transform:
        raise ZeroDivisionError("division by zero\nand more")


class Wait(Stage):
    """Leaves a note that it is there, and waits for its end until another is at `go`."""

    kind: ClassVar[str] = "wait"
    note: str
    go: str

    def prepare(self, weights: Weights, context: Context) -> Transform:
        Path(self.note).write_text(str(os.getpid()))
        while not Path(self.go).exists():
            time.sleep(0.02)
        return lambda weight: [weight]


class Full(Stage):
    """Lets the system refuse to write more, until there is something at `go`."""

    kind: ClassVar[str] = "full"
    go: str

    def prepare(self, weights: Weights, context: Context) -> Transform:
        if not Path(self.go).exists():
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        return lambda weight: [weight]


STAGES = {stage.kind: stage for stage in (Die, Fail, Wait, Full)}
