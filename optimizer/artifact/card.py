"""The card of an artifact: what it is, how it was made, what was measured, how to load it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optimizer.artifact.card_data import front_matter
from optimizer.errors import ArtifactError
from optimizer.files import replacing
from optimizer.formats import FORMATS
from optimizer.manifest import CARD, Manifest
from optimizer.rows.row import Row, columns
from optimizer.stages import STAGES
from optimizer.stages.untouched import Remainder
from optimizer.yaml import dump

_SHOWN = 10  # of what was left alone
_FIGURES = (*columns("original", "size", "quality", "data", "latency", "memory"), "device", "threads")


def write_card(
    directory: Path,
    manifest: Manifest,
    recipe: Mapping[str, Any],
    figures: Row | None,
    alone: Remainder | None = None,
) -> None:
    """Write or atomically replace the card; `figures` is a row, None before anything was measured.

    `alone` is what the stages left alone, None where that is not known. What the hub reads of a card goes before it.

    Raises ArtifactError when it cannot be written.
    """
    from huggingface_hub import ModelCard

    data = front_matter(directory, manifest, recipe, figures)
    text = _text(manifest, recipe, figures, alone)
    try:
        with replacing(directory / CARD) as partial:
            partial.write_text(str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}")), encoding="utf-8")
    except OSError as error:
        raise ArtifactError(f"{directory / CARD}: cannot be written ({error.strerror or error})") from error


def _text(manifest: Manifest, recipe: Mapping[str, Any], figures: Row | None, alone: Remainder | None) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    return f"""# {manifest.original}, optimized by the recipe `{recipe["name"]}`

Made by `optimizer` from `{manifest.original}` (fingerprint `{manifest.original_fingerprint[:16]}`); the files and their
sha256 are in `manifest.json`.

## Load

```python
import optimizer

model = optimizer.load("THIS DIRECTORY")
```

{FORMATS[manifest.format].how_to_load}{_needs(manifest, recipe)}

## Recipe

```yaml
{dump(recipe).rstrip()}
```

## Measured

{_table(figures)}
{_left_alone(alone)}
Versions: {versions}.
"""


def _needs(manifest: Manifest, recipe: Mapping[str, Any]) -> str:
    """The packages that the codes of its stages are for, where the format keeps these as they are."""
    kinds = (STAGES.get(stage["stage"]) for stage in recipe["stages"].values())
    packages = dict.fromkeys(package for kind in kinds if kind for package in kind.packages)
    if not packages or not FORMATS[manifest.format].holds_weights:
        return ""
    unpacked = ", unpacked too" if FORMATS[manifest.format].unpacks_to else ""
    return f"\nIt needs {' and '.join(packages)} wherever it is loaded{unpacked}: `pip install {' '.join(packages)}`."


def _table(figures: Row | None) -> str:
    if figures is None:
        return "Nothing yet."
    values = figures.values()
    lines = [f"| {name} | {_short(values[name])} |" for name in _FIGURES if values[name] is not None]
    return "\n".join(["| figure | value |", "| --- | --- |", *lines])


def _left_alone(alone: Remainder | None) -> str:
    if alone is None or not alone.weights:
        return ""
    shown = alone.weights[:_SHOWN]
    lines = [
        f"| {each.module} | {each.count} | {' x '.join(map(str, each.shape))} | {each.bytes} | {each.reason} |"
        for each in shown
    ]
    table = "\n".join(["| module | weights | shape | bytes | reason |", "| --- | --- | --- | --- | --- |", *lines])
    more = f"\n\nand {count} smaller ones." if (count := len(alone.weights) - len(shown)) else ""
    return f"""
## Left alone

No stage but `cast` changed {alone.ratio:.1%} of the original's weight bytes:

{table}{more}
"""


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
