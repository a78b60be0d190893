"""Which launcher the settings name, and what is refused before anything runs."""

from pathlib import Path

import items
import pytest
from omegaconf import OmegaConf

from optimizer.errors import RecipeError
from optimizer.launchers import LAUNCHERS, Basic, parse
from optimizer.processes.cores import cores

_CONF = Path(__file__).parents[2] / "conf" / "hydra" / "launcher"


def refusal(values: dict[str, object]) -> str:
    with pytest.raises(RecipeError) as caught:
        parse(values)
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_without_settings_it_is_basic() -> None:
    assert parse(None) == Basic()
    assert parse({"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"}) == Basic()


def test_every_launcher_but_basic_has_a_file_that_shows_all_its_settings_with_their_defaults() -> None:
    assert {path.stem for path in _CONF.iterdir()} == LAUNCHERS.keys() - {"basic"}
    for path in _CONF.iterdir():
        purpose, command, *rest = path.read_text().splitlines()
        assert purpose.startswith("# ")
        assert command.startswith(f"# python -m optimizer -m hydra/launcher={path.stem} ")
        assert all("  # " in line for line in rest if not line.startswith(("launcher: ", "address: ")))
        values = OmegaConf.to_container(OmegaConf.load(path))
        assert isinstance(values, dict)
        kind = LAUNCHERS[path.stem]
        assert parse({str(key): value for key, value in values.items()}) == kind()
        assert values.keys() == {"launcher", *kind.model_fields}


def test_what_is_wrong_is_one_line() -> None:
    assert refusal({"launcher": "jobblib"}) == (
        "hydra.launcher.launcher: unknown launcher 'jobblib'; did you mean 'joblib'?"
    )
    assert refusal({"n_jobs": 2}).startswith("hydra.launcher.launcher: unknown launcher None; ")
    said = refusal({"launcher": "joblib", "njobs": 2})
    assert said == "hydra.launcher: unknown key 'njobs'; did you mean 'hydra.launcher.n_jobs'?"
    assert refusal({"launcher": "joblib", "n_jobs": 0}).startswith("hydra.launcher.n_jobs: 0: must be 1 or more, or -1")
    assert refusal({"launcher": "submitit_local", "n_jobs": -2}).startswith("hydra.launcher.n_jobs: -2: ")
    assert refusal({"launcher": "submitit_slurm", "mem_gb": "4"}).startswith("hydra.launcher.mem_gb: '4': ")
    assert refusal({"launcher": "submitit_slurm", "timeout_min": 2}).startswith("hydra.launcher.signal_delay_s: 120: ")
    assert refusal({"launcher": "submitit_slurm", "setup": ["a", 1]}).startswith("hydra.launcher.setup.1: 1: ")
    assert refusal({"launcher": "ray", "num_cpus": 0}).startswith("hydra.launcher.num_cpus: 0: ")
    plugin = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"
    assert "plug-ins are not used; write hydra/launcher=NAME" in refusal({"_target_": plugin, "n_jobs": 2})


@pytest.mark.parametrize(
    ("values", "workers"),
    [
        ({"launcher": "basic"}, 1),
        ({"launcher": "joblib"}, cores()),
        ({"launcher": "joblib", "n_jobs": 3}, 3),
        ({"launcher": "submitit_local", "n_jobs": 3}, 3),
        ({"launcher": "submitit_slurm", "array_parallelism": 7}, 7),
        ({"launcher": "ray", "num_cpus": 0.5}, 2 * cores()),
        ({"launcher": "ray", "num_cpus": 2 * cores()}, 1),
        ({"launcher": "ray", "n_jobs": 3}, 3),
    ],
)
def test_how_many_runs_there_are_at_once(values: dict[str, object], workers: int) -> None:
    assert parse(values).workers == workers


@pytest.mark.usefixtures("no_package")
@pytest.mark.parametrize("kind", sorted(LAUNCHERS.keys() - {"basic", "joblib"}))
def test_what_is_not_installed_is_named_at_once(kind: str, tmp_path: Path) -> None:
    extra = kind.partition("_")[0]
    with pytest.raises(RecipeError, match=rf"pip install 'transformer-optimizer\[{extra}\]'$"):
        parse({"launcher": kind}).launch(items.act, [], tmp_path)


def test_slurms_programs_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RecipeError, match="no sbatch here; start this on a machine of the SLURM cluster"):
        parse({"launcher": "submitit_slurm"}).launch(items.act, [], tmp_path)
