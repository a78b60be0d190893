"""Tiny models of every task, as the directories that people have, and the command line in this process."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_hub import FakeHub

from optimizer.model.task import Task

# Tiny models gain nothing from threads, and wait long for them on a busy machine. Read when torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# fmt: off
WORDS = [
    "the", "a", "cat", "dog", "bird", "fish", "sees", "likes", "finds", "runs",
    "sleeps", "red", "green", "blue", "big", "small", "today", "now", "here", "there",
]
# fmt: on
_SIZE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "initializer_range": 0.5,  # wide enough for answers to differ from text to text
}
_BERT = _SIZE | {"max_position_embeddings": 32, "pad_token_id": 0}
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`tiny_model(task)` is a shared directory, not to be changed; `tiny_model(task, directory, **config)` a new one.

    Weights are drawn from seed 0, so the same call gives the same weights. `config` changes the configuration.
    """
    shared: dict[str, Path] = {}

    def build(task: Task, directory: Path | None = None, **config: Any) -> Path:
        if directory is not None:
            return _save(task, directory, config)
        assert not config, "give a directory to a model of its own"
        if task not in shared:
            shared[task] = _save(task, tmp_path_factory.mktemp(task), {})
        return shared[task]

    return build


def _save(task: Task, directory: Path, changes: dict[str, Any]) -> Path:
    import torch

    torch.manual_seed(0)
    _model(task, changes).save_pretrained(directory)
    if task == "causal-lm":
        plain_tokenizer().save_pretrained(directory)
    elif task == "seq2seq-lm":
        plain_tokenizer(ending="</s>").save_pretrained(directory)
    elif task not in ("image-classification", "zero-shot-image-classification", "speech-seq2seq"):
        _bert_tokenizer().save_pretrained(directory)
    return directory


def _model(task: Task, changes: dict[str, Any]) -> Any:
    import transformers as hf

    vocabulary = len(_SPECIAL) + len(WORDS)
    match task:
        case "causal-lm":
            size = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 32, "initializer_range": 0.5}
            ends = {"bos_token_id": 0, "eos_token_id": 0}
            return hf.GPT2LMHeadModel(hf.GPT2Config(**{"vocab_size": vocabulary} | size | ends | changes))
        case "seq2seq-lm":
            size = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "initializer_factor": 5.0}
            ends = {"decoder_start_token_id": 1, "pad_token_id": 1, "eos_token_id": 0}
            return hf.T5ForConditionalGeneration(hf.T5Config(**{"vocab_size": vocabulary} | size | ends | changes))
        case "image-classification":
            shape = {"image_size": 8, "patch_size": 4, "num_labels": 3}
            return hf.ViTForImageClassification(hf.ViTConfig(**_SIZE | shape | changes))
        case "zero-shot-image-classification":
            text = _SIZE | {
                "vocab_size": vocabulary,
                "max_position_embeddings": 16,
                "bos_token_id": 2,
                "eos_token_id": 3,
            }
            image = _SIZE | {"image_size": 8, "patch_size": 4}
            parts = {"text_config": text, "vision_config": image, "projection_dim": 16}
            return hf.CLIPModel(hf.CLIPConfig(**parts | changes))
        case "speech-seq2seq":
            size = {"d_model": 32, "init_std": 0.5, "num_mel_bins": 8, "max_source_positions": 20}
            size |= dict.fromkeys(("encoder_layers", "decoder_layers"), 1) | {"max_target_positions": 40}
            size |= dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2)
            size |= dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 64)
            ends = {"decoder_start_token_id": 1, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
            none = {"begin_suppress_tokens": None}
            config = hf.WhisperConfig(**{"vocab_size": vocabulary} | size | ends | none | changes)
            return hf.WhisperForConditionalGeneration(config)
    heads: dict[str, Any] = {
        "sequence-classification": hf.BertForSequenceClassification,
        "token-classification": hf.BertForTokenClassification,
        "question-answering": hf.BertForQuestionAnswering,
        "masked-lm": hf.BertForMaskedLM,
        "encoder": hf.BertModel,
    }
    labels = {"num_labels": 3} if task.endswith("classification") else {}
    return heads[task](hf.BertConfig(**{"vocab_size": vocabulary} | _BERT | labels | changes))


def _bert_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate(_SPECIAL + WORDS)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=32,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def plain_tokenizer(ending: str | None = None) -> Any:
    """One token a word, no padding token; `ending` closes each text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate(["</s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if ending:
        tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {ending}", special_tokens=[(ending, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>")


@pytest.fixture
def fake_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """A hub on this machine, for this process and those that it starts, with an empty cache and no token."""
    from huggingface_hub import constants

    home = tmp_path / "huggingface"
    with FakeHub().running() as hub:
        environment = {"HF_ENDPOINT": hub.address, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        # What these variables set when huggingface_hub is imported.
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        url = constants.HUGGINGFACE_CO_URL_TEMPLATE
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.address + url[url.index("/{repo_id}") :])
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
        monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(home / "stored_tokens"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield hub


@pytest.fixture
def optimizer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """`optimizer(*arguments)` runs the command in this process, in an empty folder: (exit code, stdout, stderr)."""
    from optimizer import __main__ as command

    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["optimizer", *arguments])
        capfd.readouterr()  # what other fixtures have printed
        with pytest.raises(SystemExit) as stopped:
            command.main()
        out, err = capfd.readouterr()
        return int(stopped.value.code or 0), out, err

    return run
