"""Tiny models whose directories hold the same bytes on every machine: no random numbers, no versions."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers

_SIZE = {
    "vocab_size": 64,
    "hidden_size": 64,  # a multiple of 64, which the 4-bit kernel asks for
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 128,
    "max_position_embeddings": 32,
}
_ENDS = {"bos_token_id": 0, "eos_token_id": 0}
_WIDE = 4096  # with 64 columns it makes a matrix large enough for the codec's Huffman coder
_STEP = 2.0**-19
_SPREADS = 3  # standard deviations of 0.07, 0.14 and 0.29


def bert() -> hf.PreTrainedModel:
    """A classifier of three labels."""
    return hf.BertForSequenceClassification(hf.BertConfig(**_SIZE, num_labels=3))


def gpt2() -> hf.PreTrainedModel:
    """Conv1D layers, an output tied to the embeddings."""
    return hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=64, n_embd=64, n_layer=2, n_head=2, n_positions=32, **_ENDS))


def llama() -> hf.PreTrainedModel:
    """Grouped heads, an output of its own; stored in bfloat16, as language models are."""
    config = hf.LlamaConfig(**_SIZE, **_ENDS, num_key_value_heads=1, tie_word_embeddings=False)
    return hf.LlamaForCausalLM(config).to(torch.bfloat16)


def sharded() -> hf.PreTrainedModel:
    """In several files, as `save` stores what is this large; one matrix takes the codec's other way."""
    config = hf.LlamaConfig(**_SIZE | _ENDS | {"vocab_size": _WIDE, "tie_word_embeddings": True})
    return hf.LlamaForCausalLM(config)


def smallest() -> hf.PreTrainedModel:
    """A few kB: what the committed artifacts were made from."""
    small = {"vocab_size": 24, "hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 64}
    return hf.BertForSequenceClassification(hf.BertConfig(**_SIZE | small | {"max_position_embeddings": 8}))


GOLDEN: dict[str, Callable[[], hf.PreTrainedModel]] = {"bert": bert, "gpt2": gpt2, "llama": llama, "sharded": sharded}


def save(model: hf.PreTrainedModel, directory: Path) -> Path:
    """The directory as people have it: the model with values that its names decide, and a tokenizer."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(_values(name, parameter.shape))
    model.save_pretrained(directory, max_shard_size="800KB")
    _tokenizer().save_pretrained(directory)
    for path in directory.glob("*config.json"):
        values = json.loads(path.read_text())
        if "transformers_version" in values:  # the original's fingerprint, and so the run ids, would follow it
            path.write_text(json.dumps(values | {"transformers_version": "5.0.0"}, indent=2, sort_keys=True) + "\n")
    return directory


def _values(name: str, shape: torch.Size) -> torch.Tensor:
    """Bell-shaped values from the name's hash, each a multiple of a power of two: exact in float32, not in float16."""
    digest = hashlib.shake_128(name.encode()).digest(8 * shape.numel())
    bell = np.frombuffer(digest, dtype="<u2").reshape(-1, 4).sum(axis=1, dtype=np.int64) - 2 * 65535
    values = torch.from_numpy(bell * (_STEP * 2 ** (digest[0] % _SPREADS))).float().reshape(shape)
    is_norm = len(shape) == 1 and name.endswith("weight")
    return values + 1 if is_norm else values


def _tokenizer() -> hf.PreTrainedTokenizerFast:
    words = ["[PAD]", "[UNK]", "the", "a", "cat", "dog", "sees", "likes", "red", "small"]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=16, pad_token="[PAD]", unk_token="[UNK]"
    )
