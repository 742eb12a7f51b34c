"""Read the files of one source in parts, in parallel, into shards that are kept in a cache.

A shard is a folder: rows.jsonl, the trainer's lines of the rows that passed, and index.sqlite, a line for every row
that entered. Its name is a hash of everything that it depends on: the bytes of the part's file, the options of the
rows, this package's code. So an unchanged file is not read again, a changed one never taken for the old one, and the
number of workers changes nothing.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import xxhash

from data_prep.build.rows import COLUMNS, RowOptions, RowWorker, dropped
from data_prep.jsonl import file_sha256
from data_prep.parts import Part, parts
from data_prep.rules import BadRow
from data_prep.sources import Schema, adjacent, all_schemas
from data_prep.workers import Workers

PART_BYTES = 8 << 20  # of a plain .jsonl file; other formats cannot be entered in the middle
ROWS, INDEX = "rows.jsonl", "index.sqlite"
_STALE = 24 * 3600  # seconds after which an unfinished shard is nobody's
_BATCH = 2000  # rows between two inserts


def fast_hash(path: Path) -> str:
    """128 bits of a file's bytes (not for provenance: the manifest has the SHA-256)."""
    digest = xxhash.xxh3_128()
    with open(path, "rb", buffering=0) as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@cache
def code_version() -> str:
    """A hash of this package's code: a changed rule makes new shards. What no row passes through does not count."""
    digest = hashlib.sha256()
    root = Path(__file__).resolve().parents[1]
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if not name.startswith(("card/", "world/")):
            digest.update(name.encode() + path.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Job:
    """One part to be made into a shard. options: a key of _options."""

    part: Part
    options: str
    shard: Path


# The options in use, by what identifies them. Workers are forked, so they have them without a copy for every part:
# the benchmarks' index alone can be megabytes.
_options: dict[str, RowOptions] = {}


def jobs(path: Path, options: RowOptions, schema: Schema, cache_dir: Path) -> list[Job]:
    """The shards of one file."""
    about = {"code": code_version(), "file": fast_hash(path), "format": path.suffixes, "options": options.key()}
    key = json.dumps(about["options"], sort_keys=True, default=str)
    _options[key] = options
    found = []
    _tidy(cache_dir)
    for part in parts(path, schema.rows, PART_BYTES):
        text = json.dumps({**about, "start": part.start, "stop": part.stop}, sort_keys=True, default=str)
        found.append(Job(part, key, cache_dir / hashlib.sha256(text.encode()).hexdigest()[:32]))
    return found


def _tidy(cache_dir: Path) -> None:
    """Remove what killed builds left. A younger one may be at work in another process."""
    for leftover in cache_dir.glob(".part-*"):
        if time.time() - leftover.stat().st_mtime > _STALE:
            shutil.rmtree(leftover, ignore_errors=True)


class Reading:
    """Makes the shards that are not there yet, and the SHA-256 of every file beside it.

    Iterating gives every job in order, as soon as its shard is there; `digests` is complete after that. Raises
    UserInputError with the line of a file that cannot be read, StageFailed if a worker is killed.
    """

    def __init__(self, work: list[Job], workers: int):
        self.work, self.workers = work, workers
        self.digests: dict[Path, str] = {job.part.path: "" for job in work}
        self.missing = [job for job in work if not (job.shard / INDEX).is_file()]

    def __iter__(self) -> Iterator[Job]:
        with Workers(self.workers) as workers:
            # All are under way at once: the hashes come last, and a process that is done with its shards makes them.
            made = workers.in_order(_make, self.missing, ahead=len(self.missing))
            hashed = workers.in_order(file_sha256, self.digests, ahead=len(self.digests))
            yield from self._in_order(made)
            self.digests = dict(zip(self.digests, hashed))

    def _in_order(self, made: Iterator[None]) -> Iterator[Job]:
        missing = set(self.missing)
        for job in self.work:
            if job in missing:
                next(made)
            yield job


_workers: dict[str, RowWorker] = {}


def _row_worker(key: str) -> RowWorker:
    """The worker of some options, made once in a process: it loads the tokenizer."""
    if key not in _workers:
        options = _options[key]
        schema = next(s for s in all_schemas() if s.name == options.schema)
        _workers[key] = RowWorker(options, schema)
    return _workers[key]


def _make(job: Job) -> None:
    """Write one shard into a hidden folder and give it its name."""
    worker = _row_worker(job.options)
    gc.disable()  # rows have no cycles; looking for some takes a tenth of the time
    job.shard.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".part-", dir=job.shard.parent))
    try:
        with open(folder / ROWS, "wb", buffering=1 << 20) as out, _index(folder / INDEX, COLUMNS) as index:
            _fill(job.part, worker, out, index)
        os.replace(folder, job.shard)
    except OSError:
        if not (job.shard / INDEX).is_file():  # another build made the same shard meanwhile
            raise
    finally:
        gc.enable()
        shutil.rmtree(folder, ignore_errors=True)


class _index:
    """The table of a shard; commits when the block ends well."""

    def __init__(self, path: Path, columns: tuple[str, ...]):
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.execute("PRAGMA journal_mode=OFF")
        self.db.execute("PRAGMA synchronous=OFF")
        self.db.execute(f"CREATE TABLE rows (id INTEGER PRIMARY KEY, {', '.join(columns)})")
        self.db.execute("CREATE TABLE texts (id INTEGER PRIMARY KEY, text)")
        self._insert = f"INSERT INTO rows ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"

    def __enter__(self) -> _index:
        self.db.execute("BEGIN")
        return self

    def add(self, rows: list[tuple]) -> None:
        self.db.executemany(self._insert, rows)

    def add_texts(self, rows: list[tuple]) -> None:
        self.db.executemany("INSERT INTO texts VALUES (?, ?)", rows)

    def __exit__(self, kind, *_) -> None:
        if kind is None:
            self.db.execute("COMMIT")
        self.db.close()


def _fill(part: Part, worker: RowWorker, out, index: _index) -> None:
    offset, number, rows, texts = 0, 0, [], []
    width = worker.schema.rows
    for line, row in adjacent(worker.schema, part.rows()):
        try:
            data, columns, text = worker.work(row, line, offset)
        except BadRow as bad:
            count = len(row) if width > 1 else 1
            rows += [dropped(line + i, bad) for i in range(count)]
            number += count
        else:
            out.write(data)
            rows.append(columns)
            if worker.options.keep_texts:
                texts.append((number + 1, text))
            rows += [_joined(line + i) for i in range(1, width)]
            number += width
            offset += len(data)
        if len(rows) >= _BATCH:
            index.add(rows)
            index.add_texts(texts)
            rows, texts = [], []
    index.add(rows)
    index.add_texts(texts)


def _joined(line: int) -> tuple:
    """A source row that is part of the record of the row before it."""
    return (line, "joined", "part of the record of the row before", *[None] * (len(COLUMNS) - 3))
