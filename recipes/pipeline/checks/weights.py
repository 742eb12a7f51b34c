"""A checkpoint from outside has all of its parts: every file of its weights, and the tokenizer."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

from recipes.pipeline.checks.external import TOKENIZER, TOKENIZER_FILES, Checkpoint
from recipes.pipeline.checks.inherited import outside, pieces
from recipes.pipeline.checks.paths import K1
from recipes.pipeline.checks.subject import Subject

WEIGHTS, SMALL = "model_weights", 2 * 10**9  # bytes of a compressed .nemo that is read to its end
AGAIN = "copy or export it again"
# Names of files stand as plain text in the pickle that .metadata is; nothing is unpickled.
SHARD = re.compile(rb"__\d+_\d+\.distcp")


@K1
def weights_are_whole(stage: Subject):
    for name, source in outside(stage):
        trouble = _directory(source.path / WEIGHTS) if source.path.is_dir() else _tar(source.path)
        for message in list(trouble)[:3]:
            yield f"inputs.{name}", f"{source.path}: {message}", AGAIN


def _directory(weights: Path) -> Iterator[str]:
    """What is wrong with a distributed checkpoint of megatron-core (torch_dist or zarr)."""
    if not weights.is_dir():
        return  # said by external.py
    finished = weights.resolve()
    if any(Path(f"{path}-unfinished").exists() for path in (weights, finished)):
        yield f"{finished.name}-unfinished lies beside its weights: the job that wrote them was killed"
    try:
        backend = json.loads((weights / "metadata.json").read_text(encoding="utf-8")).get("sharded_backend")
    except (OSError, ValueError, AttributeError):
        yield f"{WEIGHTS}/metadata.json is missing or cannot be read, without which megatron-core loads nothing"
        return
    if backend == "zarr":
        if not any(weights.glob("*/.zarray")):
            yield f"{WEIGHTS} says zarr and holds no tensor"
        return
    index = weights / ".metadata"
    if not index.is_file() or not index.stat().st_size:
        yield f"{WEIGHTS}/.metadata is missing or empty, without which the shards cannot be read"
        return
    named = {text.decode() for text in SHARD.findall(index.read_bytes())}
    there = {path.name: path.stat().st_size for path in weights.glob("*.distcp")}
    lost = sorted(name for name in named if not there.get(name))
    if lost:
        yield f"{len(lost)} of the {len(named)} shards that .metadata names are missing or empty: {lost[0]}"
    elif not any(there.values()):
        yield f"{WEIGHTS} holds no shard (*.distcp) with anything in it"


def _tar(path: Path) -> Iterator[str]:
    """A .nemo file to its end: an uncompressed one by its headers, a compressed one only where it is small."""
    try:
        with tarfile.open(path, "r:") as tar:
            names = [member.name for member in tar]
            rest = path.stat().st_size - tar.offset
    except tarfile.ReadError as error:
        if "unexpected end of data" in str(error):
            yield "is cut off in the middle of a file"
        elif path.stat().st_size <= SMALL:
            yield from _compressed(path)
        return
    if rest < 0:
        yield "is cut off in the middle of a file"
    elif not any(WEIGHTS in name for name in names):
        yield f"has no {WEIGHTS} inside"


def _compressed(path: Path) -> Iterator[str]:
    try:
        with tarfile.open(path, "r:*") as tar:
            if not any(WEIGHTS in member.name for member in tar):
                yield f"has no {WEIGHTS} inside"
    except (OSError, EOFError, tarfile.TarError) as error:
        yield f"is cut off: {error}"


@K1
def tokenizer_is_there(stage: Subject):
    for name, source in outside(stage):
        message = _tokenizer(source)
        if message:
            fix = f"put the file that model_config.yaml names beside it, or {TOKENIZER_FILES[0]} into {TOKENIZER}/"
            yield f"inputs.{name}", f"{source.path}: {message}", fix


def _tokenizer(source: Checkpoint) -> str:
    """Why the tokenizer of a checkpoint cannot be built; "" where it can, or where only reading a tar would tell."""
    block = source.config.get("tokenizer")
    if not isinstance(block, dict):
        return "its config has no `tokenizer:` block"
    if not source.path.is_dir():
        return ""  # the stage takes it out of the tar, and says so if it is not there
    if block.get("library") == "huggingface":
        return "" if source.tokenizer(Path()) else f"its tokenizer {block.get('type')} is not in it"
    named = str(block.get("model") or block.get("tokenizer_model") or "")
    file = source.path / named.removeprefix("nemo:")
    if named.startswith("nemo:") and not file.is_file():
        return f"its config names the tokenizer {file.name}, which is not in it"
    if not source.tokenizer(Path()):
        where = f" (its config names {named}, a path of the machine that wrote it)" if "/" in named else ""
        return f"it holds no tokenizer{where}"
    path = source.tokenizer(Path())
    return "" if pieces(path, path.stat().st_mtime_ns) else f"{path.name} is no SentencePiece model"
