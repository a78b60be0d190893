"""Train the demo model from nothing: `python -m optimizer.demo.train [OUT_DIR]`.

Leaves `model/` and `test.jsonl` in OUT_DIR. One machine and one set of versions give the same bytes each time.
"""

import argparse
import json
import re
import string
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

from optimizer.demo import MODEL, TEXTS
from optimizer.demo.grammar import Example, generate, labels

SEED = 7
TRAIN_SEED, VALIDATION_SEED, TEST_SEED = 1, 2, 3
TRAIN_SIZE, VALIDATION_SIZE, TEST_SIZE = 40_000, 1_000, 2_000
STEPS = 5000
VOCABULARY_SIZE = 1000
MAX_TOKENS = 64
LAYERS, WIDTH, HEADS = 3, 128, 4
BATCH_SIZE = 32
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.01
WARMUP_SHARE = 0.1
THREADS = 2

CARD = """\
# Demo: intents of a support desk

A BERT classifier of {parameters:,} parameters that tells {classes} intents of an invented support desk apart. It was
trained from nothing on {train:,} generated messages by `python -m optimizer.demo.train`; model, grammar and texts
are part of this project. Many intents differ in a word or two only, so that a compressed copy has something to lose.

Accuracy on the {test:,} messages of `test.jsonl`, none of which it was trained on: {accuracy:.4f}.
"""


@dataclass(frozen=True)
class Splits:
    """Messages to train on, to watch the training with, and to measure with; no two share a message."""

    train: list[Example]
    validation: list[Example]
    test: list[Example]


def split(train_size: int, validation_size: int, test_size: int) -> Splits:
    """Draw the splits; test is drawn first, so the other sizes do not change it."""
    test = generate(TEST_SEED, test_size)
    validation = generate(VALIDATION_SEED, validation_size, exclude=[example.text for example in test])
    held_out = [example.text for example in (*test, *validation)]
    return Splits(generate(TRAIN_SEED, train_size, exclude=held_out), validation, test)


def build_tokenizer(texts: Sequence[str]) -> BertTokenizer:
    """Make a lower-case WordPiece tokenizer of every letter and digit and of the most frequent words.

    The trainer of the tokenizers library breaks ties by a random hash: two runs would give two models.
    """
    letters = string.ascii_lowercase + string.digits
    words = Counter(word for text in texts for word in re.findall(r"\w+|[^\w\s]", text.lower()))
    by_frequency = sorted(words, key=lambda word: (-words[word], word))
    special = BertTokenizer().get_vocab()
    tokens = [*sorted(special, key=special.__getitem__), *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = list(dict.fromkeys((*tokens, *by_frequency)))[:VOCABULARY_SIZE]
    return BertTokenizer({token: index for index, token in enumerate(vocabulary)}, model_max_length=MAX_TOKENS)


def build_model(tokenizer: BertTokenizer) -> BertForSequenceClassification:
    """Make an untrained classifier over the labels of the grammar."""
    names = labels()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH,
        max_position_embeddings=MAX_TOKENS,
        hidden_dropout_prob=0.0,  # four passes over generated messages overfit little; dropout only slows them
        attention_probs_dropout_prob=0.0,
        initializer_range=WIDTH**-0.5,  # BERT's 0.02 suits a width of 768; so narrow a model learns slowly from it
        pad_token_id=tokenizer.pad_token_id,
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
    )
    return BertForSequenceClassification(config)


def train(
    model: BertForSequenceClassification, tokenizer: BertTokenizer, examples: Sequence[Example], steps: int
) -> None:
    """Fit the model in place: AdamW, linear warm-up, linear decay to zero."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    warmup = max(1, int(WARMUP_SHARE * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (steps - step) / max(1, steps - warmup))
    )
    model.train()
    progress = tqdm(range(steps), desc="train", unit="step")
    for _, batch in zip(progress, _batches(examples), strict=False):
        loss = model(**_encode(tokenizer, batch), labels=_targets(model, batch)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        progress.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    model.eval()


@torch.inference_mode()
def accuracy(model: BertForSequenceClassification, tokenizer: BertTokenizer, examples: Sequence[Example]) -> float:
    """Share of the examples whose label the model predicts."""
    right = 0
    for start in range(0, len(examples), BATCH_SIZE):
        batch = examples[start : start + BATCH_SIZE]
        predicted = model(**_encode(tokenizer, batch)).logits.argmax(-1)
        right += int((predicted == _targets(model, batch)).sum())
    return right / len(examples)


def _batches(examples: Sequence[Example]) -> Iterator[list[Example]]:
    while True:
        order = torch.randperm(len(examples)).tolist()
        for start in range(0, len(order), BATCH_SIZE):
            yield [examples[index] for index in order[start : start + BATCH_SIZE]]


def _encode(tokenizer: BertTokenizer, batch: Sequence[Example]) -> dict[str, Tensor]:
    texts = [example.text for example in batch]
    return dict(tokenizer(texts, padding=True, truncation=True, return_tensors="pt"))


def _targets(model: BertForSequenceClassification, batch: Sequence[Example]) -> Tensor:
    return torch.tensor([model.config.label2id[example.label] for example in batch])


def _write_examples(path: Path, examples: Sequence[Example]) -> None:
    lines = (json.dumps({"text": example.text, "label": example.label}) + "\n" for example in examples)
    path.write_text("".join(lines), encoding="utf-8")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number; write 1 or more")
    return value


def main(arguments: Sequence[str] | None = None) -> None:
    """Generate, train, measure and write; `arguments` are those of the command line."""
    parser = argparse.ArgumentParser(prog="python -m optimizer.demo.train", description=main.__doc__)
    parser.add_argument("out_dir", nargs="?", type=Path, default=MODEL.parent, help="default: %(default)s")
    parser.add_argument("--steps", type=_positive, default=STEPS)
    parser.add_argument("--train-size", type=_positive, default=TRAIN_SIZE)
    parser.add_argument("--validation-size", type=_positive, default=VALIDATION_SIZE)
    parser.add_argument("--test-size", type=_positive, default=TEST_SIZE)
    options = parser.parse_args(arguments)

    torch.manual_seed(SEED)
    torch.set_num_threads(THREADS)
    started = time.perf_counter()
    splits = split(options.train_size, options.validation_size, options.test_size)
    tokenizer = build_tokenizer([example.text for example in splits.train])
    model = build_model(tokenizer)
    train(model, tokenizer, splits.train, options.steps)

    on_test = accuracy(model, tokenizer, splits.test)
    folder = options.out_dir / MODEL.name
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    card = CARD.format(
        parameters=model.num_parameters(),
        classes=len(labels()),
        train=len(splits.train),
        test=len(splits.test),
        accuracy=on_test,
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
    _write_examples(options.out_dir / TEXTS.name, splits.test)
    on_validation = accuracy(model, tokenizer, splits.validation)
    seconds = time.perf_counter() - started
    print(f"accuracy: {on_validation:.4f} validation, {on_test:.4f} test; {seconds:.0f} s; written to {folder}")


if __name__ == "__main__":
    main()
