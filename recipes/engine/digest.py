"""The content hash of a model directory, with one layer in memory at a time: a stack of layers at 340B has 261 GB."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from recipes.engine.convert.torch_dist import Reader
from recipes.pipeline.checks.external import TOKENIZER

WEIGHTS, SENTENCEPIECE = "model_weights", "tokenizer.model"


def content_hash(directory: Path) -> str:
    """sha256 over the model config, the tokenizer's files and every tensor (name, type, shape, bytes row by row)."""
    total = hashlib.sha256((directory / "model_config.yaml").read_bytes())
    single = directory / SENTENCEPIECE
    for file in [single] if single.is_file() else sorted((directory / TOKENIZER).iterdir()):
        total.update(file.read_bytes())
    reader = Reader(directory / WEIGHTS)
    for name in sorted(reader.tensors):
        entry = reader.tensors[name]
        total.update(f"{name}|{entry.properties.dtype}|{tuple(entry.size)}|".encode())
        stacked = len(entry.size) > 2 or ".layers." in name
        for piece in reader.layers(name) if stacked else [reader.read(name)]:
            total.update(piece.contiguous().view(-1).view(torch.uint8).numpy())
    return total.hexdigest()
