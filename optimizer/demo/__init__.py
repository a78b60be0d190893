"""The shipped demo: a small intent classifier, held-out texts for it, and sentences for models without data."""

from pathlib import Path

_HERE = Path(__file__).resolve().parent

MODEL: Path = _HERE / "model"
TEXTS: Path = _HERE / "test.jsonl"
SENTENCES: Path = _HERE / "builtin.txt"
