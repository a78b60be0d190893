"""Load artifacts of the demo under other releases of transformers, each in a folder of its own, with equal answers.

The last one is the lowest release of everything that loading needs but torch, whose releases are gigabytes each.

python scripts/test_versions.py [VERSION ...]
"""

import argparse
import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import torch

import optimizer

VERSIONS = ("5.0.0", "5.5.4", "5.10.2", "5.17.0", "5.20.0", "5.23.0")
LOWEST = "lowest"
RECIPES = {
    "dense": ("recipe=fp16", "format=dense"),
    "packed": ("recipe=compact",),
    "packed, 8 bits": ("recipe=balanced",),
    "packed, 4 bits": ("recipe=nf4", "format=packed"),
}
_ROOT = Path(__file__).resolve().parent.parent
_ASK = """
import sys, warnings
warnings.simplefilter("ignore")
import torch, transformers, optimizer
transformers.logging.set_verbosity_error()
for place in sys.argv[2:]:
    with torch.no_grad():
        logits = optimizer.load(place)(input_ids=torch.arange(24).reshape(2, 12) % 90).logits
    torch.save(logits.float(), f"{place}/{sys.argv[1]}.pt")
"""


def main() -> int:
    """Print a Markdown table; the exit code is 0 when every artifact loads under every release and answers alike."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(",")[0])
    default = [*VERSIONS, LOWEST]
    parser.add_argument("versions", nargs="*", default=default, help=f"releases (default: {' '.join(default)})")
    given = parser.parse_args()
    good = True
    with tempfile.TemporaryDirectory() as folder:
        places = {name: _made(Path(folder) / name.replace(" ", "_"), words) for name, words in RECIPES.items()}
        _ask("here", os.environ, [*places.values()])
        print("| transformers | " + " | ".join(places) + " |")
        print("| --- |" + " --- |" * len(places), flush=True)
        for version in given.versions:
            target = Path(folder) / version
            install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            wanted = lowest() if version == LOWEST else [f"transformers=={version}", "accelerate"]
            subprocess.run([*install, *wanted, "--target", str(target)], check=True, capture_output=True)
            _ask(version, os.environ | {"PYTHONPATH": f"{_ROOT}{os.pathsep}{target}"}, [*places.values()])
            cells = [_cell(place, version) for place in places.values()]
            good &= all(cell == "equal" for cell in cells)
            print(f"| {version} | " + " | ".join(cells) + " |", flush=True)
    return 0 if good else 1


def lowest() -> list[str]:
    """What pip is asked for: of each package that loading needs the lowest release that is allowed, but for torch."""
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bounds = [each.partition(",")[0].split(">=") for each in project["dependencies"]]
    return [f"{name}=={version}" for name, version in bounds if name != "torch"] + ["accelerate"]


def _made(out: Path, words: tuple[str, ...]) -> Path:
    rows = optimizer.run(optimizer.compose(*words, "evaluation=none"), out=out)
    return out / str(rows.artifact[0])


def _ask(version: str, environment: "os._Environ[str] | dict[str, str]", places: list[Path]) -> None:
    for place in places:  # each in a process of its own: one that fails is a cell
        command = [sys.executable, "-c", _ASK, version, str(place)]
        subprocess.run(command, env=dict(environment), capture_output=True, check=version == "here")


def _cell(place: Path, version: str) -> str:
    answered = place / f"{version}.pt"
    if not answered.exists():
        return "does not load"
    difference = (torch.load(answered) - torch.load(place / "here.pt")).abs().max().item()
    return "equal" if difference == 0 else f"differs by {difference:.1g}"


if __name__ == "__main__":
    sys.exit(main())
