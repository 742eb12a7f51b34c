"""Content hashes of files and directories."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from recipes.pipeline.files import canonical_json

# A directory that holds this file has the file's text as its content hash. Model directories write it:
# a digest over tensors, config and tokenizer does not depend on timestamps inside the checkpoint files.
CONTENT_FILE = "CONTENT_SHA256"
_BUFFER = 1 << 20
_hash_cache: dict[tuple[str, int, int], str] = {}


def sha256_file(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes; computed once a process while path, size and mtime stay the same."""
    stat = os.stat(path)
    key = (os.path.abspath(path), stat.st_size, stat.st_mtime_ns)
    if key not in _hash_cache:
        digest = hashlib.sha256()
        with open(path, "rb", buffering=0) as source:
            while block := source.read(_BUFFER):
                digest.update(block)
        _hash_cache[key] = digest.hexdigest()
    return _hash_cache[key]


def content_hash(path: str | Path) -> str:
    """The content hash of a file or directory; FileNotFoundError if it is not there.

    A file: SHA-256 of its bytes. A directory: the text of its CONTENT_SHA256 if it has one, otherwise
    SHA-256 over the sorted (relative path, file SHA-256) pairs, leaving out names that start with ".".
    """
    path = Path(path)
    if path.is_file():
        return sha256_file(path)
    if (path / CONTENT_FILE).is_file():
        return (path / CONTENT_FILE).read_text(encoding="utf-8").strip()
    if not path.is_dir():
        raise FileNotFoundError(f"no such file or directory: {path}")
    files = [rel for rel in walk_files(path) if not is_hidden(rel)]
    return tree_hash(dict(zip(files, hash_files([path / rel for rel in files]), strict=True)))


def is_hidden(rel: str) -> bool:
    return any(part.startswith(".") for part in rel.split("/"))


def tree_hash(files: dict[str, str]) -> str:
    return hashlib.sha256(canonical_json(sorted(files.items())).encode()).hexdigest()


def walk_files(root: Path) -> list[str]:
    """Paths of all files under `root`, relative, "/"-separated and sorted. Links to directories are followed."""
    found = []
    for folder, _, names in os.walk(root, followlinks=True):
        base = Path(folder).relative_to(root)
        found += [(base / name).as_posix() for name in names if not _is_leftover(name)]
    return sorted(found)


def _is_leftover(name: str) -> bool:
    """A temporary file of `atomic_write_text` that a killed process left."""
    return name.startswith(".") and name.endswith(".tmp")


def hash_files(paths: Sequence[Path]) -> list[str]:
    # hashlib works outside the interpreter lock: the shards of a large checkpoint are hashed side by side.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(sha256_file, paths))
