"""Runs in MLflow: where MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME say, the latter `optimizer` by default."""

import os
import tempfile
import time
from pathlib import Path
from typing import Any

from optimizer.errors import RecipeError, first_line
from optimizer.tracking.record import Record

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when it is imported: nothing goes to anybody else

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

_ENDED = {"ok": "FINISHED", "rejected": "FINISHED", "failed": "FAILED"}
_AT_ONCE = 100  # parameters, and tags, in a request


def check() -> None:
    """Raise RecipeError where the store cannot be reached."""
    try:
        _experiment(MlflowClient())
    except Exception as error:  # of whatever store there is
        raise RecipeError(f"track: {first_line(error)}; set MLFLOW_TRACKING_URI to a store that is there") from None


def keep(record: Record) -> str:
    """Keep a run with its parameters, its figures, its files and the plots; its address in the store."""
    client = MlflowClient()
    run = client.create_run(_experiment(client), run_name=record.name)
    address, now = run.info.run_id, int(time.time() * 1000)
    params = [Param(name, value) for name, value in record.parameters.items()]
    tags = [RunTag(name, value) for name, value in record.texts.items()]
    for start in range(0, max(len(params), len(tags)), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        client.log_batch(address, params=params[part], tags=tags[part])
    client.log_batch(address, metrics=[Metric(name, value, now, 0) for name, value in record.figures.items()])
    for file in record.files:
        client.log_artifact(address, str(file))
    with tempfile.TemporaryDirectory() as folder:
        for name, png in record.plots.items():
            (Path(folder) / f"{name}.png").write_bytes(png)
            client.log_artifact(address, str(Path(folder) / f"{name}.png"), "plots")
    client.set_terminated(address, _ENDED[record.status])
    return f"{client.tracking_uri}: {address}"


def _experiment(client: Any) -> str:
    """The id of the experiment, made if it is not there; another process may make it in the same moment."""
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "optimizer")
    if (found := client.get_experiment_by_name(name)) is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException:
            if (found := client.get_experiment_by_name(name)) is None:
                raise
    return str(found.experiment_id)
