"""A Markdown table of what every recipe leaves of a model: bytes, entropy, agreement, coding speed; peers beside it.

python scripts/benchmark_size.py [--model DIR --data FILE]
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from optimizer.composing import COMMAND_KEYS, compose
from optimizer.data.texts import DataSettings
from optimizer.errors import OptimizerError
from optimizer.evaluation.job import EvaluationSettings
from optimizer.evaluation.models import quiet
from optimizer.model.checkpoint import read_config
from optimizer.model.locate import ModelSettings, locate
from optimizer.model.shards import open_shards, weight_bytes
from optimizer.model.task import auto_class, task_of
from optimizer.packing import codec
from optimizer.packing.payload import is_payload, stored_codes
from optimizer.recipe import parse
from optimizer.rows.row import Row
from optimizer.runs.comparing import compare
from optimizer.runs.sweep import sweep
from optimizer.stages.prune import prune

RECIPES = {
    "fp16": ["recipe=fp16"],
    "int8": ["recipe=int8"],
    "nf4": ["recipe=nf4"],
    "balanced, dense": ["recipe=balanced", "format=dense"],
    "packed_fp16": ["recipe=packed_fp16"],
    "pruned, packed": ["recipe=pruned", "format=packed"],
    "nf4, packed": ["recipe=nf4", "format=packed"],
    "balanced": ["recipe=balanced"],
    "balanced, embeddings pruned too": ["recipe=balanced", "+stages.prune.roles=[linear,embedding]"],
    "aggressive": ["recipe=aggressive"],
    "compact": ["recipe=compact"],
}
HEADER = "| what | MB | of the original | bits a weight | above entropy | agreement | encode MB/s | decode MB/s |"
REPEATS = 5


def main() -> int:
    """Run every recipe, measure, print the table; the exit code is 0, or 2 with one line on stderr."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition(",")[0], epilog="Explained in docs/figures.md of the project."
    )
    parser.add_argument("--model", default="demo", help="directory of the original (default: the demo)")
    parser.add_argument("--data", default="auto", help="texts (default: those shipped)")
    given = parser.parse_args()
    quiet()
    try:
        with tempfile.TemporaryDirectory() as folder:
            print(HEADER)
            print("| --- |" + " ---: |" * (HEADER.count("|") - 2))
            for line in _lines(given.model, given.data, Path(folder)):
                print(line, flush=True)
    except OptimizerError as error:
        print(f"benchmark_size: {error}", file=sys.stderr)
        return 2
    return 0


def _lines(model: str, data: str, folder: Path) -> Iterator[str]:
    for name, overrides in RECIPES.items():
        common = [f"model.path={model}", f"data.path={data}", "evaluation.repetitions=0", f"out={folder / 'out'}"]
        (config,) = compose([*overrides, *common])
        recipe = parse({key: value for key, value in config.items() if key not in COMMAND_KEYS})
        (row,) = sweep([recipe], folder / "out", say=lambda line: print(line, file=sys.stderr))
        coding = _coding(folder / "out" / row.artifact) if row.artifact and row.format == "packed" else ("", "", "")
        yield _line(name, row, coding)
    original = locate(ModelSettings(path=model)).directory
    for name, directory in _saved(original, folder):
        settings = EvaluationSettings(repetitions=0)
        (row,) = compare(model, {name: directory}, folder / "out" / "originals", DataSettings(path=data), settings)
        yield _line(name, row, ("", "", ""))
    if size := _onnx_bytes(original, folder):
        share = size / weight_bytes(original)
        yield f"| ONNX Runtime, dynamic int8 | {size / 1e6:.2f} | {share:.1%} | {32 * share:.2f} | | not measured | | |"


def _line(name: str, row: Row, coding: tuple[str, str, str]) -> str:
    if row.artifact_bytes is None:
        return f"| {name} | failed: {row.error} |" + " |" * 6
    above, encode, decode = coding
    return (
        f"| {name} | {row.artifact_bytes / 1e6:.2f} | {row.size_ratio:.1%} | {row.bits_per_parameter:.2f} | "
        f"{above} | {row.agreement:.4f} | {encode} | {decode} |"
    )


def _coding(artifact: Path) -> tuple[str, str, str]:
    """How far the payloads are above the order-0 entropy, and MB of coded tensors per second, one thread."""
    payloads = list(_payloads(artifact))
    values = [stored_codes(payload) for payload in payloads]
    bits = sum(codec.order0_bits(tensor) for tensor in values)
    megabytes = sum(tensor.numel() * tensor.itemsize for tensor in values) / 1e6
    encode = min(_seconds(lambda: [codec.encode(tensor) for tensor in values]) for _ in range(REPEATS))
    decode = min(_seconds(lambda: [stored_codes(payload) for payload in payloads]) for _ in range(REPEATS))
    above = 8 * sum(payload.numel() for payload in payloads) / bits - 1
    return f"{above:.1%}", f"{megabytes / encode:.0f}", f"{megabytes / decode:.0f}"


def _payloads(artifact: Path) -> Iterator[torch.Tensor]:
    for shard in open_shards(artifact):
        with safe_open(shard.path, framework="pt") as file:
            for name in shard.shapes:
                tensor = file.get_tensor(name)
                if is_payload(tensor):
                    yield tensor


def _seconds(function: Any) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def _saved(original: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    """What people do without this program: prune, then save_pretrained."""
    model = auto_class(task_of(read_config(original))).from_pretrained(original)
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.data = prune(module.weight.data, 0.3)
    model.save_pretrained(folder / "pruned")
    yield "plain pruning 30 %, save_pretrained", folder / "pruned"


def _onnx_bytes(original: Path, folder: Path) -> int | None:
    """Bytes of ONNX Runtime's dynamic int8 model, None where it is not installed."""
    try:
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError:
        return None
    model = auto_class(task_of(read_config(original))).from_pretrained(original).eval()
    ids = torch.ones((1, 16), dtype=torch.int64)
    torch.onnx.export(
        model, (ids, ids), folder / "model.onnx", dynamo=False, input_names=["input_ids", "attention_mask"]
    )
    quantize_dynamic(folder / "model.onnx", folder / "int8.onnx", weight_type=QuantType.QInt8)
    return (folder / "int8.onnx").stat().st_size


if __name__ == "__main__":
    sys.exit(main())
