"""The card of an artifact: what it is, how it was made, what was measured, how to load it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optimizer.artifact.manifest import CARD, Manifest
from optimizer.errors import ArtifactError
from optimizer.rows.row import Row, columns
from optimizer.yaml import dump

_LOADING = {
    "dense": "The format is `dense`: plain `from_pretrained` loads it as well, without this package.",
    "packed": (
        "The format is `packed`: `from_pretrained` loads it as well, after `import optimizer`, and fails without it.\n"
        "Never give it `ignore_mismatched_sizes=True`, which without that import would load random weights.\n"
        "`python -m optimizer.unpack THIS_DIRECTORY OUT` writes one that needs no package."
    ),
}
_FIGURES = (*columns("original", "size", "quality", "data", "latency", "memory"), "device", "threads")


def write_card(directory: Path, manifest: Manifest, recipe: Mapping[str, Any], figures: Row | None) -> None:
    """Write or atomically replace the card; `figures` is a row, None before anything was measured.

    Raises ArtifactError when it cannot be written.
    """
    partial = directory / f"{CARD}.partial"
    try:
        partial.write_text(_text(manifest, recipe, figures), encoding="utf-8")
        partial.replace(directory / CARD)
    except OSError as error:
        raise ArtifactError(f"{directory / CARD}: cannot be written ({error.strerror or error})") from error
    finally:
        partial.unlink(missing_ok=True)


def _text(manifest: Manifest, recipe: Mapping[str, Any], figures: Row | None) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    return f"""# {manifest.original}, optimized by the recipe `{recipe["name"]}`

Made by `optimizer` from `{manifest.original}` (fingerprint `{manifest.original_fingerprint[:16]}`); the files and their
sha256 are in `manifest.json`.

## Load

```python
import optimizer

model = optimizer.load("THIS DIRECTORY")
```

{_LOADING[manifest.format]}

## Recipe

```yaml
{dump(recipe).rstrip()}
```

## Measured

{_table(figures)}

Versions: {versions}.
"""


def _table(figures: Row | None) -> str:
    if figures is None:
        return "Nothing yet."
    values = figures.values()
    lines = [f"| {name} | {_short(values[name])} |" for name in _FIGURES if values[name] is not None]
    return "\n".join(["| figure | value |", "| --- | --- |", *lines])


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
