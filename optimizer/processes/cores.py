"""How many cores there are to compute on; the one answer for threads, launchers and packing."""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath


def cores(root: Path = Path("/")) -> int:
    """The cores that this process may run on, no more than its container's quota of processor time comes to.

    The quota is that of cgroup v2 (`cpu.max`) or v1 (`cpu.cfs_quota_us`), of this process's group or any above it,
    rounded up: https://docs.kernel.org/admin-guide/cgroup-v2.html. `root` is where `proc` and `sys` are.
    """
    return min([_allowed(), *map(math.ceil, _quotas(root))])


def _allowed() -> int:
    """Those that this process may run on, as far as the system tells; all elsewhere."""
    with suppress(AttributeError):  # no macOS, no Windows
        return len(os.sched_getaffinity(0))
    count: int | None = getattr(os, "process_cpu_count", os.cpu_count)()  # from Python 3.13 on
    return count or 1


def _quotas(root: Path) -> Iterator[float]:
    """Every quota above nothing that holds for this process, in cores."""
    for group in _groups(root):
        with suppress(OSError, ValueError):  # no such file: no quota; "max": none either
            quota, period = map(int, _quota(group))
            if quota > 0 and period > 0:
                yield quota / period


def _groups(root: Path) -> Iterator[Path]:
    """The folders of this process's groups and of all above them; a container sees its own as the topmost."""
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers or "cpu" in controllers.split(","):
                top = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
                place = PurePosixPath(path.lstrip("/"))
                yield from (top / above for above in (place, *place.parents))


def _quota(group: Path) -> list[str]:
    """The quota and its period, in microseconds."""
    with suppress(FileNotFoundError):
        return (group / "cpu.max").read_text(encoding="utf-8").split()
    return [(group / f"cpu.cfs_{name}_us").read_text(encoding="utf-8") for name in ("quota", "period")]
