"""A Markdown table of how fast classifiers run, ours beside the usual engines, on this machine, interleaved.

python scripts/benchmark_speed.py --shapes
python scripts/benchmark_speed.py --model DIR --data FILE --calibration FILE [--ours NAME=ARTIFACT ...]
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from speed_candidates import OURS, PEERS, Candidate, Inputs, Setting, artifact
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from optimizer.data.texts import DataSettings, read
from optimizer.data.tokens import token_inputs
from optimizer.errors import EvaluationError, OptimizerError, first_line
from optimizer.evaluation.models import quiet
from optimizer.model.loading import load
from optimizer.model.tokenizer import load_tokenizer
from optimizer.processes.cores import cores
from optimizer.processes.machine import alone
from optimizer.processes.processor import described

FIRST = "torch, float32"
GRID = "8x128,8x32,1x32"
_QUANTILE = 0.1  # of the times: what others on the machine do only ever adds to them
_SECONDS = 20.0  # for one candidate at one shape
_BATCH = 32  # texts, sorted by length, for agreement
_CALIBRATION = 300
_NAMES = ("input_ids", "attention_mask", "token_type_ids")
_PRODUCT = (1024, 3072, 768)


def main() -> int:
    """Measure and print; the exit code is 0, or 2 with one line on stderr."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition(",")[0], epilog="Explained in docs/figures.md of the project."
    )
    parser.add_argument("--shapes", action="store_true", help="BERT-base and DeBERTa-v3-base with random weights")
    parser.add_argument("--model", type=Path, action="append", default=[], help="directory of a classifier")
    parser.add_argument("--data", action="append", default=[], help="its texts to agree on")
    parser.add_argument("--calibration", action="append", default=[], help="its texts to calibrate on")
    parser.add_argument("--ours", action="append", default=[], metavar="NAME=DIR", help="an artifact to time as well")
    parser.add_argument("--grid", default=GRID, help=f"batch x length, ... (default: {GRID})")
    parser.add_argument("--examples", type=int, help="agree on so many texts (default: all)")
    given = parser.parse_args()
    quiet()
    torch.set_num_threads(cores())
    try:
        if not len(given.model) == len(given.data) == len(given.calibration):
            raise EvaluationError("--model, --data and --calibration: one of each for every model; write all three")
        print(f"{described()}; {cores()} threads", flush=True)
        cases = [_random(kind, given.grid) for kind in ("bert", "deberta-v2")] if given.shapes else []
        cases += [_trained(*case, given) for case in zip(given.model, given.data, given.calibration, strict=True)]
        for case in cases:
            for line in case():
                print(line, flush=True)
    except OptimizerError as error:
        print(f"benchmark_speed: {error}", file=sys.stderr)
        return 2
    return 0


def _random(kind: str, grid: str) -> Callable[[], Iterator[str]]:
    """The case of a base-size shape whose weights are drawn."""

    def case() -> Iterator[str]:
        from transformers import AutoConfig, AutoModelForSequenceClassification

        deberta = {
            "vocab_size": 128100, "relative_attention": True, "position_buckets": 256, "pos_att_type": ["p2c", "c2p"],
            "norm_rel_ebd": "layer_norm", "share_att_key": True, "position_biased_input": False, "type_vocab_size": 0,
            "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
            "max_relative_positions": -1,
        }  # fmt: skip
        config = AutoConfig.for_model(kind, num_labels=3, **(deberta if kind == "deberta-v2" else {}))
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(config).eval()
        texts = [_block(model, 1, length) for length in range(8, 68)]
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            yield from _table(f"{kind}, base shape, random weights", model, Path(folder), texts, None, {}, grid)

    return case


def _trained(directory: Path, data: str, calibration: str, given: Any) -> Callable[[], Iterator[str]]:
    """The case of a classifier with its texts."""

    def case() -> Iterator[str]:
        model = load(directory)
        texts = _examples(model, directory, data, given.examples)
        ours = dict(one.split("=", 1) for one in given.ours)
        known = _examples(model, directory, calibration, _CALIBRATION)
        yield from _table(directory.name, model, directory, known, texts, ours, given.grid)

    return case


def _table(
    name: str,
    model: Any,
    directory: Path,
    calibration: Sequence[Inputs],
    texts: Sequence[Inputs] | None,
    ours: Mapping[str, str],
    grid: str,
) -> Iterator[str]:
    """The lines about one model: a row for each candidate, and one for the floor."""
    shapes = [tuple(int(number) for number in shape.split("x")) for shape in grid.split(",")]
    yield f"\n### {name}\n"
    yield "| what | " + " | ".join(f"{batch} x {length}" for batch, length in shapes) + " | size | agreement |"
    yield "| --- |" + " ---: |" * (len(shapes) + 2)
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(model, directory, calibration, Path(folder), cores())
        candidates, missing = _candidates(setting, ours)
        blocks = [_block(model, batch, length) for batch, length in shapes]
        with alone():
            rate = _rate()
            times = [_times(candidates, block) for block in blocks]
            rate = max(rate, _rate())
        answers = None if texts is None else _answers(candidates[FIRST], texts)
        for one, candidate in candidates.items():
            agreement = ""
            if texts is not None and answers is not None:
                agreement = f"{(_answers(candidate, texts) == answers).double().mean().item():.4f}"
            cells = [_cell(one, taken, candidates) for taken in times]
            share = candidate.size / candidates[FIRST].size
            yield f"| {one} | " + " | ".join(cells) + f" | {share:.1%} | {agreement} |"
        for one, reason in missing.items():
            yield f"| {one} | " + " | ".join([reason, *[""] * (len(shapes) - 1)]) + " | | |"
        seconds = [_operations(model, block) / rate for block in blocks]
        floors = [f"{taken[FIRST] / floor:.2f} x" for taken, floor in zip(times, seconds, strict=True)]
        yield "| floor: all its products at the rate of a bare int8 one | " + " | ".join(floors) + " | | |"
    yield (
        "\nSpeed-up over torch float32, low quantile of interleaved runs; in brackets over the fastest of the others.\n"
        f"Bare int8 products: {rate / 1e9:.0f} G operations/s."
    )


def _candidates(setting: Setting, ours: Mapping[str, str]) -> tuple[dict[str, Candidate], dict[str, str]]:
    """What can be run here, and why the rest cannot."""
    makers = {name: partial(make, setting) for name, make in {**PEERS, **OURS}.items()}
    makers |= {f"**{name}**": partial(artifact, Path(place)) for name, place in ours.items()}
    made: dict[str, Candidate] = {}
    missing: dict[str, str] = {}
    for name, make in makers.items():
        try:
            candidate = make()
            candidate.ask(_block(setting.model, 2, 8))
            made[name] = candidate
        except Exception as error:  # a peer that is not installed, or fails, is a row of the table
            if name == FIRST:
                raise
            missing[name] = first_line(error)[:80]
    return made, missing


def _times(candidates: Mapping[str, Candidate], block: Inputs) -> dict[str, float]:
    """Seconds for one batch; candidates take turns in a new order each time."""
    for candidate in candidates.values():
        candidate.tune(block)
    once = {name: min(_time(candidate, block) for _ in range(3)) for name, candidate in candidates.items()}
    rounds = int(min(200, max(15, _SECONDS * len(candidates) / sum(once.values()))))
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    order = list(candidates)
    draw = random.Random(0)
    for _ in range(rounds):
        draw.shuffle(order)
        for name in order:
            taken[name].append(_time(candidates[name], block))
    return {name: float(np.quantile(values, _QUANTILE)) for name, values in taken.items()}


def _time(candidate: Candidate, block: Inputs) -> float:
    start = time.perf_counter()
    candidate.ask(block)
    return time.perf_counter() - start


def _cell(name: str, taken: Mapping[str, float], candidates: Mapping[str, Candidate]) -> str:
    speedup = f"{taken[FIRST] / taken[name]:.2f} x"
    if name in PEERS:
        return speedup
    fastest = min(taken[peer] for peer in PEERS if peer in candidates)
    return f"{speedup} ({fastest / taken[name]:.2f} x)"


def _rate() -> float:
    """Operations a second, two to a multiply-add, of a bare product of int8 matrices."""
    rows, inner, columns = _PRODUCT
    left = torch.randint(-100, 100, (rows, inner), dtype=torch.int8)
    right = torch.randint(-100, 100, (inner, columns), dtype=torch.int8)
    seconds = []
    for _ in range(50):
        start = time.perf_counter()
        torch._int_mm(left, right)
        seconds.append(time.perf_counter() - start)
    return 2 * rows * inner * columns / min(seconds)


def _operations(model: Any, block: Inputs) -> int:
    """Of one forward pass, two to a multiply-add."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(**block)
    return int(counter.get_total_flops())


def _block(model: Any, batch: int, length: int) -> Inputs:
    """A batch without padding, of tokens drawn at random."""
    draw = torch.Generator().manual_seed(length)
    ids = torch.randint(5, model.config.vocab_size, (batch, length), generator=draw)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}


def _examples(model: Any, directory: Path, data: str, count: int | None) -> list[Inputs]:
    """Texts as tokens, `[1, length]` each."""
    tokenizer = load_tokenizer(directory)
    if tokenizer is None:
        raise EvaluationError(f"{directory}: has no tokenizer; write --model DIR of a directory with one")
    texts = read(DataSettings(path=data), is_demo=False)
    examples = token_inputs(texts, tokenizer, model, seed=0).examples(count)
    return [_padded([one], len(one["input_ids"])) for one in examples.values()]


def _padded(examples: Sequence[Inputs], length: int) -> Inputs:
    """Texts of one batch `[texts, length]`."""
    batch = {name: torch.zeros(len(examples), length, dtype=torch.long) for name in _NAMES}
    for row, example in enumerate(examples):
        tokens = example["input_ids"].flatten()
        batch["input_ids"][row, : len(tokens)] = tokens
        batch["attention_mask"][row, : len(tokens)] = 1
        if "token_type_ids" in example:
            batch["token_type_ids"][row, : len(tokens)] = example["token_type_ids"].flatten()
    return batch


def _answers(candidate: Candidate, texts: Sequence[Inputs]) -> Tensor:
    """The label of each text."""
    order = sorted(range(len(texts)), key=lambda place: texts[place]["input_ids"].shape[1])
    labels = torch.empty(len(texts), dtype=torch.long)
    for start in range(0, len(order), _BATCH):
        chosen = order[start : start + _BATCH]
        batch = _padded([texts[place] for place in chosen], texts[chosen[-1]]["input_ids"].shape[1])
        labels[chosen] = candidate.ask(batch).argmax(-1)
    return labels


if __name__ == "__main__":
    sys.exit(main())
