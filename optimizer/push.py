"""Upload an artifact to the hub, checked against its manifest: `python -m optimizer.push DIR ORGANIZATION/NAME`.

The command line alone: from Python it is `optimizer.push`, which a module of that name must not take the place of.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from optimizer.artifact.upload import check, send
from optimizer.errors import HubError, OptimizerError

if __name__ == "optimizer.push":
    raise ImportError("optimizer.push is a function; its command line is run by python -m optimizer.push")


def main(arguments: list[str]) -> int:
    """Push from the command line; the exit code is 0, 2 with one line on stderr, or 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m optimizer.push",
        description="Upload an artifact to the hub, once it is what its manifest says; the repository is private.",
        epilog="Explained in docs/hub.md of the project.",
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="an artifact")
    parser.add_argument("repository", metavar="ORGANIZATION/NAME", help="where it goes; made if it is not there")
    parser.add_argument("--public", action="store_true", help="let everybody see it, after asking on the terminal")
    parser.add_argument("--yes", action="store_true", help="the answer to that")
    given: Any = parser.parse_args(arguments)
    try:
        upload = check(given.directory, given.repository, public=given.public)
        if given.public and not given.yes:
            _ask(f"{given.repository} will be seen by everybody. Push it? [y/N] ")
        print(f"{given.repository} ({'public' if given.public else 'private'}): {send(upload)}")
    except OptimizerError as error:
        print(f"push: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; nothing was pushed", file=sys.stderr)
        return 130
    return 0


def _ask(question: str) -> None:
    """Raise HubError unless somebody at a terminal agrees."""
    if not sys.stdin.isatty():
        raise HubError("--public asks, and there is no terminal to ask on; write --yes too")
    if input(question).strip().lower() not in ("y", "yes"):
        raise HubError("nothing was pushed; leave --public out for a private repository")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
