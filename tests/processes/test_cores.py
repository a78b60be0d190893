"""How many cores there are: those that this process may run on, capped by every group it is in."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from optimizer.processes.cores import cores

HERE = len(os.sched_getaffinity(0))


@pytest.fixture(autouse=True)
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))


def system(root: Path, groups: str, files: Mapping[str, str]) -> Path:
    """A folder with /proc/self/cgroup and files below /sys/fs/cgroup."""
    for path, text in {"proc/self/cgroup": groups, **{f"sys/fs/cgroup/{path}": files[path] for path in files}}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def test_without_a_quota_all_that_this_process_may_run_on(tmp_path: Path) -> None:
    assert cores(tmp_path) == 8
    assert cores(system(tmp_path, "0::/\n", {"cpu.max": "max 100000\n"})) == 8
    assert (
        cores(system(tmp_path, "4:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "1"})) == 8
    )


@pytest.mark.parametrize(
    ("quota", "expected"), [("150000 100000", 2), ("1000 100000", 1), ("300000 100000", 3), ("9999999 100000", 8)]
)
def test_a_quota_caps_them_rounded_up(quota: str, expected: int, tmp_path: Path) -> None:
    assert cores(system(tmp_path, "0::/\n", {"cpu.max": quota})) == expected


def test_the_quota_of_a_group_above_counts_too(tmp_path: Path) -> None:
    files = {"a/b/cpu.max": "500000 100000", "a/cpu.max": "200000 100000"}
    assert cores(system(tmp_path, "0::/a/b\n", files)) == 2


def test_the_first_version_of_groups(tmp_path: Path) -> None:
    groups = "12:memory:/m\n4:cpu,cpuacct:/docker/abc\n0::/system\n"
    files = {"cpu/cpu.cfs_quota_us": "250000\n", "cpu/cpu.cfs_period_us": "100000\n"}
    assert cores(system(tmp_path, groups, files)) == 3


def test_what_cannot_be_understood_is_no_quota(tmp_path: Path) -> None:
    assert cores(system(tmp_path, "0::/\n", {"cpu.max": "many"})) == 8
    assert cores(system(tmp_path, "0::/\n", {"cpu.max": "0 0"})) == 8


def test_here_it_is_at_least_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert 1 <= cores() <= HERE
