"""Labelled messages to the support desk of an invented shop, drawn from `grammar.toml` by a seed."""

import random
import re
import string
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TYPO_SHARE = 0.03  # of the words
CAPITAL_SHARE = 0.5  # of the messages
END_MARKS = ("", "", ".", ".", "!")

_SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Example:
    """One message and the intent it was drawn from."""

    text: str
    label: str


@dataclass(frozen=True)
class Intent:
    """One label: `phrases` say it in a sentence, `topics` name it, `siblings` are the others of its family."""

    phrases: tuple[str, ...]
    topics: tuple[str, ...]
    siblings: tuple[str, ...]


@dataclass(frozen=True)
class Grammar:
    """The parsed `grammar.toml`; `frames` are groups of whole messages, `weights` how often each is drawn."""

    intents: Mapping[str, Intent]
    slots: Mapping[str, Sequence[str]]
    frames: tuple[tuple[str, ...], ...]
    weights: tuple[float, ...]


@cache
def load() -> Grammar:
    """Read the grammar that lies beside this file."""
    raw = tomllib.loads(Path(__file__).with_name("grammar.toml").read_text(encoding="utf-8"))
    families = {label: entry["family"] for label, entry in raw["intents"].items()}
    intents = {
        label: Intent(
            phrases=tuple(entry["phrases"]),
            topics=tuple(entry["topics"]),
            siblings=tuple(other for other in families if other != label and families[other] == families[label]),
        )
        for label, entry in raw["intents"].items()
    }
    return Grammar(
        intents=intents,
        slots=raw["slots"],
        frames=tuple(tuple(frame["texts"]) for frame in raw["frames"]),
        weights=tuple(frame["weight"] for frame in raw["frames"]),
    )


def labels() -> tuple[str, ...]:
    """Every label, in the order of the grammar: the position is the class index."""
    return tuple(load().intents)


def key(text: str) -> str:
    """What makes two messages the same one: their letters and digits, whatever the case and punctuation."""
    return "".join(character for character in text.lower() if character.isalnum())


def generate(seed: int, count: int, exclude: Iterable[str] = ()) -> list[Example]:
    """Draw `count` different messages, none of which is in `exclude`; the same arguments give the same list."""
    rng = random.Random(seed)
    seen = {key(text) for text in exclude}
    examples: list[Example] = []
    while len(examples) < count:
        label = rng.choice(labels())
        text = _write(rng, label)
        if key(text) not in seen:
            seen.add(key(text))
            examples.append(Example(text, label))
    return examples


def _write(rng: random.Random, label: str) -> str:
    grammar = load()
    intent = grammar.intents[label]
    other = grammar.intents[rng.choice(intent.siblings)]
    slots = {**grammar.slots, "phrase": intent.phrases, "topic": intent.topics, "other": other.topics}
    (frames,) = rng.choices(grammar.frames, grammar.weights)
    words = _fill(rng, rng.choice(frames), slots).split()
    text = " ".join(_misspell(rng, word) if rng.random() < TYPO_SHARE else word for word in words)
    if rng.random() < CAPITAL_SHARE:
        text = text[0].upper() + text[1:]
    return text + rng.choice(END_MARKS)


def _fill(rng: random.Random, template: str, slots: Mapping[str, Sequence[str]]) -> str:
    return _SLOT.sub(lambda match: _fill(rng, rng.choice(slots[match[1]]), slots), template)


def _misspell(rng: random.Random, word: str) -> str:
    """Drop, double, replace or swap one letter; words of three letters or fewer stay as they are."""
    if len(word) <= 3:
        return word
    at = rng.randrange(len(word) - 1)
    before, letter, after = word[:at], word[at], word[at + 1 :]
    return rng.choice(
        (
            before + after,
            before + letter + letter + after,
            before + rng.choice(string.ascii_lowercase) + after,
            before + after[0] + letter + after[1:],
        )
    )
