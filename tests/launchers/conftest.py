"""A SLURM of this machine, and workers that can import the tests' items."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

_HERE = Path(__file__).parent
_SCRIPT = _HERE.parents[1] / "scripts" / "slurm"


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(_HERE))


@pytest.fixture(scope="session")
def one_machine_slurm() -> Iterator[str]:
    """The configuration of a running SLURM, one that ran before if there is one."""
    if os.getuid() != 0:
        pytest.skip("starting SLURM needs root")
    if not shutil.which("slurmctld"):
        pytest.skip("slurmctld is not installed (apt-get install slurm-wlm munge)")
    ran_before = any(process.name() == "slurmctld" for process in psutil.process_iter())
    started = subprocess.run([_SCRIPT, "start"], capture_output=True, text=True, check=False)
    if started.returncode != 0:  # another SLURM is there, or this container does not let daemons be
        pytest.skip(started.stderr.strip())
    yield started.stdout.strip().removeprefix("export SLURM_CONF=")
    if not ran_before:
        subprocess.run([_SCRIPT, "stop"], check=True)


@pytest.fixture
def slurm(one_machine_slurm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", one_machine_slurm)


@pytest.fixture(params=["joblib", "submitit_local", "submitit_slurm", "ray"])
def kind(request: pytest.FixtureRequest) -> str:
    """The name of each launcher that spreads runs; it can run here, else the test is skipped."""
    name = str(request.param)
    if name != "joblib":  # whose name is all that it takes
        pytest.importorskip(name.partition("_")[0])
    if name == "submitit_slurm":
        request.getfixturevalue("slurm")
    return name


@pytest.fixture
def no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if no extra was installed."""
    for name in ("submitit", "ray"):
        monkeypatch.setitem(sys.modules, name, None)
