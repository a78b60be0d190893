"""The launchers: how the runs of a sweep are spread; one file each, and the one table that names them.

Hydra composes the settings of its config group `hydra/launcher` and stops there. Its launcher plug-ins are not used:
they compose every configuration again in the workers and lose all results when one job dies.
"""

from collections.abc import Mapping
from typing import Any

from optimizer.errors import RecipeError
from optimizer.launchers.basic import Basic
from optimizer.launchers.joblib import Joblib
from optimizer.launchers.launcher import Launcher
from optimizer.launchers.ray import Ray
from optimizer.launchers.submitit_local import SubmititLocal
from optimizer.launchers.submitit_slurm import SubmititSlurm
from optimizer.settings import build, nearest

__all__ = ["LAUNCHERS", "Basic", "Launcher", "parse"]

LAUNCHERS: dict[str, type[Basic | Joblib | Ray | SubmititLocal | SubmititSlurm]] = {
    launcher.kind: launcher for launcher in (Basic, Joblib, Ray, SubmititLocal, SubmititSlurm)
}

_WHERE = "hydra.launcher"
_HYDRAS_OWN = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"


def parse(values: Mapping[str, Any] | None) -> Launcher:
    """The launcher that the key `launcher` of `values` names, the other keys being its settings.

    Nothing, and what Hydra sets by itself, is `basic`. RecipeError when a key or a value is wrong.
    """
    if values is None or values.get("_target_") == _HYDRAS_OWN:
        return Basic()
    if "_target_" in values:
        raise RecipeError(
            f"{_WHERE}: '{values['_target_']}': Hydra's launcher plug-ins are not used; "
            f"write hydra/launcher=NAME with one of {', '.join(LAUNCHERS)}"
        )
    settings = {str(key): value for key, value in values.items()}
    kind = settings.pop("launcher", None)
    if kind not in LAUNCHERS:
        raise RecipeError(f"{_WHERE}.launcher: unknown launcher {kind!r}; {nearest(str(kind), LAUNCHERS)}")
    return build(LAUNCHERS[kind], settings, _WHERE)
