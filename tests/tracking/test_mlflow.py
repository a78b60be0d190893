"""Runs in the real MLflow, in a store of files; it is in an environment of its own, beside this one."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import rows

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
# What is installed here comes first: only what it lacks is taken from there.
RUN = "import sys; sys.path.append(sys.argv.pop(1)); from optimizer.__main__ import main; main()"
READ = """
import json, sys
sys.path.append(sys.argv[1])
from mlflow import MlflowClient
client = MlflowClient()
found = []
for run in client.search_runs([client.get_experiment_by_name(sys.argv[2]).experiment_id]):
    files = [file.path for file in client.list_artifacts(run.info.run_id)]
    plots = [file.path for file in client.list_artifacts(run.info.run_id, "plots")]
    found.append({
        "name": run.info.run_name, "id": run.info.run_id, "status": run.info.status, "files": files, "plots": plots,
        "params": run.data.params, "metrics": run.data.metrics, "tags": run.data.tags,
    })
json.dump(found, sys.stdout)
"""


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A folder that holds MLflow and what it needs."""
    place = tmp_path_factory.mktemp("mlflow")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--retries=1"]
    command = [*pip, "--target", str(place), "--constraint", str(ROOT / "constraints.txt"), "mlflow-skinny==3.17.2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no mlflow-skinny: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")
    yield str(place)
    shutil.rmtree(place)


@pytest.fixture
def command(there: str, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`command(program, *arguments, **variables)` with MLflow, its store in a folder of the test."""

    def run(program: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        store = {"MLFLOW_TRACKING_URI": (tmp_path / "store").as_uri(), "MLFLOW_ALLOW_FILE_STORE": "true"}
        environment = os.environ | store | {"PYTHONPATH": str(ROOT)} | variables
        return subprocess.run(
            [sys.executable, "-c", program, there, *arguments],
            env=environment, cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip

    return run


def test_runs_are_in_the_store_with_settings_figures_files_and_plots(command: Any, tmp_path: Path, tiny_model) -> None:
    words = [f"model.path={tiny_model('sequence-classification')}", "data.path=builtin", "evaluation.repetitions=0"]
    words += ["threads=1", "track=mlflow", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    done = command(RUN, "-m", "recipe=pruned", "pruning_amount=0.2,0.4", *words, MLFLOW_EXPERIMENT_NAME="team")
    assert done.returncode == 0, done.stderr
    found = {run["name"]: run for run in json.loads(command(READ, "team").stdout)}
    made = {row["run_id"]: row for row in rows(tmp_path / "outputs")}
    assert found.keys() == made.keys()
    for name, run in found.items():
        row = made[name]
        assert run["status"] == "FINISHED"
        assert row["tracked"].endswith(f": {run['id']}")
        assert run["params"]["stages.prune.amount"] == row["pruning_amount"]
        assert run["metrics"]["agreement"] == float(row["agreement"])
        assert run["metrics"]["size_ratio"] == float(row["size_ratio"])
        assert Path(run["tags"]["address"]) == tmp_path / "outputs" / row["artifact"]
        assert {"row.json", "recipe.yaml", "run.log", "plots"} == set(run["files"])
        assert run["plots"] == ["plots/size_agreement.png"]


def test_a_failed_run_is_one_there_too(command: Any, tmp_path: Path, tiny_model) -> None:
    model = tiny_model("image-classification")
    done = command(RUN, "recipe=fp16", f"model.path={model}", "track=mlflow", "evaluation.examples=4", "threads=1",
                   "evaluation.repetitions=0", "gates.agreement=0.5")  # fmt: skip
    assert done.returncode == 1, done.stderr
    (run,) = json.loads(command(READ, "optimizer").stdout)
    assert run["tags"]["status"] == "rejected"
    assert "random inputs" in run["tags"]["error"]


def test_a_store_that_is_not_there_is_one_line_before_anything_is_made(command: Any, tmp_path: Path) -> None:
    done = command(RUN, "track=mlflow", MLFLOW_ALLOW_FILE_STORE="false")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("optimizer: track: The filesystem tracking backend")
    assert line.endswith("set MLFLOW_TRACKING_URI to a store that is there")
    assert not (tmp_path / "outputs").exists()
