"""Content hashes of files and directories."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from recipes.pipeline.files import canonical_json

# A directory that holds this file has the file's text as its content hash. Model directories write it:
# a digest over tensors, config and tokenizer does not depend on timestamps inside the checkpoint files.
CONTENT_FILE = "CONTENT_SHA256"
_INDEX = ".metadata"  # torch.distributed.checkpoint's, without which the shards beside it cannot be read
_BUFFER = 1 << 20
_hash_cache: dict[tuple[str, int, int], str] = {}


def sha256_file(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes; computed once a process while path, size and mtime stay the same."""
    stat = os.stat(path)
    key = (os.path.abspath(path), stat.st_size, stat.st_mtime_ns)
    if key not in _hash_cache:
        _hash_cache[key] = _digest(path)
    return _hash_cache[key]


def _digest(path: str | Path, told: Callable[[int], None] = lambda size: None) -> str:
    """Hex SHA-256 of a file's bytes; `told` gets the size of every block that was read."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as source:
        while block := source.read(_BUFFER):
            digest.update(block)
            told(len(block))
    return digest.hexdigest()


def hash_files(paths: Sequence[Path]) -> list[str]:
    """`sha256_file` of each."""
    return _side_by_side(sha256_file, paths)


def _side_by_side(digest: Callable[[Path], str], paths: Sequence[Path]) -> list[str]:
    # hashlib works outside the interpreter lock: the shards of a large checkpoint are hashed side by side.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(digest, paths))


class Reader:
    """Hashes of what is on disk now: every file is read once, whatever this process has hashed before.

    files, bytes: how many were read so far. told: gets the size of every block, from several threads.
    """

    def __init__(self, told: Callable[[int], None] = lambda size: None):
        self.told, self._found, self.bytes = told, {}, 0

    @property
    def files(self) -> int:
        return len(self._found)

    def read_bytes(self, path: Path) -> bytes:
        """A small file whole."""
        raw = path.read_bytes()
        if path not in self._found:
            self._found[path], self.bytes = hashlib.sha256(raw).hexdigest(), self.bytes + len(raw)
        return raw

    def hash_files(self, paths: Sequence[Path]) -> list[str]:
        """Hex SHA-256 of each."""
        new = list(dict.fromkeys(path for path in paths if path not in self._found))
        self._found.update(zip(new, _side_by_side(lambda path: _digest(path, self.told), new), strict=True))
        self.bytes += sum(path.stat().st_size for path in new)
        return [self._found[path] for path in paths]


@contextmanager
def reading(total: int | None = None) -> Iterator[Reader]:
    """A Reader; on a terminal a bar on stderr shows how far it is. total: bytes that it will read, if known."""
    if not sys.stderr.isatty():
        yield Reader()
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = ("reading", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield Reader(lambda size: bar.advance(task, size))


def size_text(count: int) -> str:
    """Bytes as people read them: 812 B, 3.2 MB, 680.0 GB."""
    for unit, factor in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"


def content_hash(path: str | Path, hash_files: Callable[[Sequence[Path]], list[str]] = hash_files) -> str:
    """The content hash of a file or directory; FileNotFoundError if it is not there.

    A file: SHA-256 of its bytes. A directory: the text of its CONTENT_SHA256 if it has one, otherwise
    SHA-256 over the sorted (relative path, file SHA-256) pairs, leaving out names that start with ".", except the
    index of a distributed checkpoint.
    """
    path = Path(path)
    if path.is_file():
        return hash_files([path])[0]
    if (path / CONTENT_FILE).is_file():
        return (path / CONTENT_FILE).read_text(encoding="utf-8").strip()
    if not path.is_dir():
        raise FileNotFoundError(f"no such file or directory: {path}")
    files = [rel for rel in walk_files(path) if not is_hidden(rel)]
    return tree_hash(dict(zip(files, hash_files([path / rel for rel in files]), strict=True)))


def is_hidden(rel: str) -> bool:
    return any(part.startswith(".") and part != _INDEX for part in rel.split("/"))


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
