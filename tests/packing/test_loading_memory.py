"""What loading a packed artifact takes of memory, in a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
from artifacts import BITSANDBYTES, PLAIN

from optimizer.model.loading import load

MIB = 1 << 20
# glibc keeps what is freed of blocks below a threshold that it raises as it goes, sometimes to 32 MiB: the same loading
# then takes 165 or 235 MiB, by chance. With a fixed threshold what is freed is given back.
FIXED = {"MALLOC_MMAP_THRESHOLD_": str(MIB)}
MEMORY = """
import json, re, sys, threading, time
import optimizer
import bitsandbytes, torch
from transformers import AutoModelForSequenceClassification
from transformers.models.bert import modeling_bert

def mebibytes(key):
    return int(re.search(key + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

torch.set_num_threads(1)
small, large = sys.argv[1:]
AutoModelForSequenceClassification.from_pretrained(small)
start, peak, done = mebibytes("RssAnon"), 0, False

def watch():
    global peak
    while not done:
        peak = max(peak, mebibytes("RssAnon"))
        time.sleep(0.001)

open("/proc/self/clear_refs", "w").write("5")
resident = mebibytes("VmRSS")
watcher = threading.Thread(target=watch)
watcher.start()
model = AutoModelForSequenceClassification.from_pretrained(large)
done = True
watcher.join()
print(json.dumps({"own": peak - start, "all": mebibytes("VmHWM") - resident}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["half", "step", "int8"])
def test_loading_takes_the_model_and_a_few_tensors(
    originals: Callable[[str], Path], tmp_path: Path, recipe: str
) -> None:
    """Neither all weights in their stored dtype nor all payloads are ever there at once."""
    stages = (PLAIN | BITSANDBYTES)[recipe]
    size = {"hidden_size": 512, "num_hidden_layers": 12, "intermediate_size": 2048, "num_attention_heads": 8}
    model = tiny.bert(vocab_size=1024, initializer_range=0.02, **size)
    few = 12 * max(parameter.nbytes for parameter in model.parameters()) / MIB
    assert few < sum(parameter.nbytes for parameter in model.parameters()) / MIB / 3
    tiny.optimize(tiny.save(model, tmp_path / "large"), tmp_path / "packed", stages, format="packed")
    tiny.optimize(originals("bert"), tmp_path / "small", stages, format="packed")
    weights = sum(parameter.nbytes for parameter in load(tmp_path / "packed").parameters()) / MIB
    packed = (tmp_path / "packed" / "model.safetensors").stat().st_size / MIB
    arguments = [sys.executable, "-c", MEMORY, str(tmp_path / "small"), str(tmp_path / "packed")]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True, env=os.environ | FIXED)
    found = json.loads(done.stdout)
    assert found["own"] < weights + few, found
    # The file is mapped: its pages count for as long as nobody else needs the memory.
    assert found["all"] < weights + few + packed, found
