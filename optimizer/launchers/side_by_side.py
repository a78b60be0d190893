"""What the launchers have in common whose runs share this machine: how many there are at once."""

from pydantic import field_validator

from optimizer.processes.cores import cores
from optimizer.settings import Settings


class SideBySide(Settings):
    """Runs side by side on this machine: `n_jobs` at once, -1 for as many as it has cores."""

    n_jobs: int = -1

    @field_validator("n_jobs")
    @classmethod
    def _check_n_jobs(cls, value: int) -> int:
        if value < 1 and value != -1:
            raise ValueError("must be 1 or more, or -1 for as many as this machine has cores")
        return value

    @property
    def workers(self) -> int:
        """How many runs at once at most."""
        return cores() if self.n_jobs == -1 else self.n_jobs

    @property
    def one_by_one(self) -> bool:
        """The next begins when one ends."""
        return False
