#!/usr/bin/env python3
"""Make a trained Transformer smaller: float16, pruning, zeroing of near-zero weights, bitsandbytes 8-bit.

    python scripts/quantization_code.py --model_path DIR [--output_path DIR]

The same from Python: `from quantization_code import apply_quantization`.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import optimizer
from optimizer.errors import OptimizerError
from optimizer.processes.pipe import until_closed


def apply_quantization(
    model_path: str | Path,
    output_path: str | Path | None = None,
    pruning: bool = True,
    pruning_amount: float = 0.3,
    use_bnb: bool = True,
    compress: bool = True,
    threshold: float = 1e-3,
    format: str = "packed",
    pt: bool = True,
) -> Any:
    """Optimize the model in `model_path` and return it, loaded from the artifact at `output_path`.

    Without `output_path` the artifact takes the original's place, and the original is kept beside it. Raises an
    OptimizerError, one line, when anything is wrong.
    """
    stages = _stages(pruning, pruning_amount, use_bnb, compress, threshold, format)
    return optimizer.load(_write(model_path, output_path, stages, format, pt))


def _stages(
    pruning: bool, pruning_amount: float, use_bnb: bool, compress: bool, threshold: float, format: str
) -> dict[str, Any]:
    stages: dict[str, Any] = {}
    if pruning:
        stages["prune"] = {"amount": pruning_amount}
    if compress:
        stages["threshold"] = {"value": threshold}
    if use_bnb and format == "packed":
        # bitsandbytes leaves the embeddings alone, half of a small model; in a dense file their codes save nothing.
        stages["quantize"] = {"bits": 8, "roles": ["embedding"]}
    if use_bnb:
        stages["bitsandbytes"] = {"bits": 8}
    return stages | {"cast": {"dtype": "float16", "compute": "auto"}}


def _write(
    model_path: str | Path, output_path: str | Path | None, stages: dict[str, Any], format: str, pt: bool
) -> Path:
    from optimizer.artifact.replace import optimize_to
    from optimizer.recipe import parse

    model = {"path": str(model_path)}
    recipe = parse({"name": "quantization_code", "stages": stages, "format": format, "also_pt": pt, "model": model})
    return optimize_to(recipe, Path(output_path) if output_path else None, print)


def _loading(place: Path, format: str) -> tuple[str, str]:
    """The two lines of Python that load the result."""
    from optimizer.model.checkpoint import read_config
    from optimizer.model.task import auto_class, task_of

    if format == "packed":
        return "import optimizer", f'model = optimizer.load("{place}")'
    name = auto_class(task_of(read_config(place))).__name__
    return f"from transformers import {name}", f'model = {name}.from_pretrained("{place}")'


def main() -> int:
    """Parse the guide's flags and run; the exit code is 0, or 2 with one line on stderr."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], epilog="Explained in docs/guide.md of the project."
    )
    flag = argparse.BooleanOptionalAction
    parser.add_argument("--model_path", required=True, help="directory of the trained model")
    parser.add_argument("--output_path", help="where the result goes (default: in the original's place)")
    parser.add_argument("--pruning", action=flag, default=True, help="set the smallest weights to zero")
    parser.add_argument("--pruning_amount", type=float, default=0.3, help="the fraction of them, 0.0 to 0.9")
    parser.add_argument("--use_bnb", action=flag, default=True, help="bitsandbytes 8-bit linear layers")
    parser.add_argument("--compress", action=flag, default=True, help="set near-zero weights to zero")
    parser.add_argument("--threshold", type=float, default=1e-3, help="the magnitude below which they are near zero")
    parser.add_argument("--format", choices=("packed", "dense"), default="packed", help="how the weights are stored")
    parser.add_argument("--pt", action=flag, default=True, help="also write model_optimized.pt, a plain state dict")
    given = vars(parser.parse_args())
    paths, pt = (given.pop("model_path"), given.pop("output_path")), given.pop("pt")
    try:
        place = _write(*paths, _stages(**given), given["format"], pt)
    except OptimizerError as error:
        hint = "; or write --no-use_bnb" if "needs the package bitsandbytes" in str(error) else ""
        print(f"quantization_code: {error}{hint}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; nothing was changed", file=sys.stderr)
        return 130
    print(f"the optimized model is in {place}; load it with")
    print("\n".join(_loading(place, given["format"])))
    return 0


if __name__ == "__main__":
    sys.exit(until_closed(main))
