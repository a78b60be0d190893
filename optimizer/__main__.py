"""The command line: Hydra composes the configuration, everything after that takes plain values."""

import os
import sys
from pathlib import Path
from typing import Any

import optimizer
from optimizer.errors import OptimizerError, lacking
from optimizer.processes.pipe import until_closed


def main() -> None:
    """Run the command in sys.argv; the exit code is 0 (all ok), 1 (a run failed or was rejected), 2 or 130."""
    sys.exit(until_closed(lambda: _with_parts(sys.argv[1:])))


def _with_parts(arguments: list[str]) -> int:
    """The command, or one line where what it needs is not installed: loading needs less than this."""
    try:
        return _main(arguments)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "optimizer":
            raise
        print(f"optimizer: {lacking(error)}", file=sys.stderr)
        return 2


def _main(arguments: list[str]) -> int:
    if "--version" in arguments:
        print(f"optimizer {optimizer.__version__} ({Path(optimizer.__file__).parent})")
        return 0
    from optimizer.composing import compose, compose_launcher, wants_traceback
    from optimizer.processes import interrupt

    # Threads that wait for each other by spinning are ten times slower as soon as anything else uses a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    interrupt.listen()
    try:
        configs = compose(arguments)
        return _run(configs, compose_launcher(arguments)) if configs else 0
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    except OptimizerError as error:
        if wants_traceback(arguments):
            raise
        print(f"optimizer: {error}", file=sys.stderr)
        return 2


def _run(configs: list[dict[str, Any]], launcher: dict[str, Any] | None) -> int:
    from optimizer import command, launchers
    from optimizer.composing import COMMAND_KEYS
    from optimizer.settings import build

    options = build(command.Options, {key: configs[0][key] for key in COMMAND_KEYS}, "")
    recipes = [{key: value for key, value in config.items() if key not in COMMAND_KEYS} for config in configs]
    return command.execute(recipes, options, launchers.parse(launcher))


if __name__ == "__main__":
    main()
