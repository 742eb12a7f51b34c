"""Tiny Hugging Face checkpoints with random weights, as transformers writes them, and the tokenizers for them."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

WORDS = "the a river stone seven green letters count answer write code print list of and is number small house".split()
SIZE = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 128, "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
CONTROL = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|end_of_text|>"]


def lines(count: int) -> list[str]:
    draw = random.Random(0)
    return [" ".join(draw.choices(WORDS, k=12)) + "." for _ in range(count)]


def sentencepiece(folder: Path, pieces: int = 400) -> Path:
    """tokenizer.model with the control tokens of the nemotron template."""
    from data_prep.tokenizer import train_tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    corpus = folder / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines(500)))
    train_tokenizer(corpus, folder / "tokenizer.model", pieces, 1)
    corpus.unlink()
    return folder


def bpe(folder: Path, pieces: int = 389) -> Path:
    """tokenizer.json and its companions, with the control tokens of the llama3 template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=pieces, special_tokens=CONTROL, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(lines(500), trainer)
    names = {"bos_token": CONTROL[0], "eos_token": CONTROL[4]}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(str(folder))
    return folder


def model(folder: Path, family: str, tokenizer: Path, dtype: str = "float32", shard: str = "150KB", **changes) -> Path:
    """A checkpoint folder: family nemotron | llama, `changes` to its config, the files of `tokenizer` beside it."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, NemotronConfig

    torch.manual_seed(0)
    kind = {"nemotron": NemotronConfig, "llama": LlamaConfig}[family]
    config = kind(**{"vocab_size": 400, "initializer_range": 0.1, **SIZE, **changes})
    made = AutoModelForCausalLM.from_config(config)
    for name, parameter in made.named_parameters():
        if "norm" in name:  # ones and zeros would hide a norm that is left out
            parameter.data += 0.2 * torch.randn_like(parameter)
    made.to(getattr(torch, dtype)).save_pretrained(str(folder), max_shard_size=shard)
    for file in tokenizer.iterdir():
        shutil.copy(file, folder)
    return folder


def weights(folder: Path) -> dict:
    """Every tensor of a folder's safetensors files, by name, as the library reads them."""
    from safetensors.torch import load_file

    return {name: value for file in sorted(folder.glob("*.safetensors")) for name, value in load_file(file).items()}
