"""Every row that entered, in one SQLite file: what became of it, and where its line is.

SQLite sorts and groups on disk in bounded memory, so a build of ten times the rows takes ten times the time, not the
memory; and the file that decided about the rows is the one that `align data inspect` reads.

Columns of `rows`, beside those of rows.py:COLUMNS:
    source, file   indexes into the tables of these names          shard, offset, length   where the trainer's line is
    bucket         None: usable; else the bucket it was dropped in  detail                  why, in words
    grp            hash of the first user turn: rows of one group never part over training and validation
    prompt         hash of the whole prompt, case and white space aside
    content        hash of prompt and response(s), whichever stands first
    judge          whose rewards these are, "" where nobody says
    side           of a comparison: which of its two sorted responses is the better one
    key, ord       hash of the trainer's line; the same mixed with the seed: the order of the output
    copies, split  how often the row is in the output, and in which file
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from data_prep.build.ingest import INDEX
from data_prep.build.rows import COLUMNS, hash64
from recipes.errors import StageFailed

_TABLES = f"""
CREATE TABLE rows (id INTEGER PRIMARY KEY, source, file, shard, {", ".join(COLUMNS)}, ord,
                   copies DEFAULT 1, split DEFAULT 'train');
CREATE TABLE source (id INTEGER PRIMARY KEY, name, schema, licence);
CREATE TABLE file (id INTEGER PRIMARY KEY, path, bytes, sha256);
CREATE TABLE shard (id INTEGER PRIMARY KEY, folder);
"""


class Catalog:
    """The table of rows of one build. seed: of the order of rows and of which are taken."""

    def __init__(self, path: Path, seed: int):
        self.path, self.seed = path, seed
        self.db = sqlite3.connect(path, isolation_level=None)
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-8000", "temp_store=FILE"):
            self.db.execute(f"PRAGMA {pragma}")
        self.db.create_function("mix", 2, self.mix, deterministic=True)
        self.db.executescript(_TABLES)
        self.db.execute("CREATE TEMP TABLE texts (id INTEGER PRIMARY KEY, text)")
        self._rows = self._shards = 0

    def mix(self, key: int, salt: int) -> int:
        """A hash of a row's key, the seed and a salt: what is first in this order does not depend on the input's."""
        return hash64(key.to_bytes(8, "little", signed=True), self.seed + 2**32 * salt)

    def add_shard(self, source: int, file: int, folder: Path, base_line: int) -> int:
        """Take in the index of a shard; returns how many source rows it has. StageFailed if the cache was damaged."""
        try:
            return self._add_shard(source, file, folder, base_line)
        except sqlite3.DatabaseError as error:
            shutil.rmtree(folder, ignore_errors=True)
            message = f"{folder} in the cache was damaged ({error}) and is removed; start the build again"
            raise StageFailed(message) from None

    def _add_shard(self, source: int, file: int, folder: Path, base_line: int) -> int:
        self.db.execute("INSERT INTO shard VALUES (?, ?)", (self._shards, str(folder)))
        self.db.execute("ATTACH ? AS part", (str(folder / INDEX),))
        columns = ", ".join(COLUMNS)
        count = self.db.execute(
            f"INSERT INTO rows (id, source, file, shard, {columns}, ord) SELECT id + ?, ?, ?, ?, line + ?, "
            f"{', '.join(COLUMNS[1:])}, CASE WHEN key IS NULL THEN NULL ELSE mix(key, 0) END FROM part.rows",
            (self._rows, source, file, self._shards, base_line),
        ).rowcount
        self.db.execute("INSERT INTO texts SELECT id + ?, text FROM part.texts", (self._rows,))
        self.db.execute("DETACH part")
        self._rows, self._shards = self._rows + count, self._shards + 1
        return count

    def one(self, sql: str, *values):
        return self.db.execute(sql, values).fetchone()[0]

    def all(self, sql: str, *values) -> Iterator[tuple]:
        return self.db.execute(sql, values)

    def drop(self, bucket: str, detail: str, where: str, *values) -> int:
        """Move the usable rows of a condition into a bucket; returns how many."""
        sql = f"UPDATE rows SET bucket = ?, detail = ? WHERE bucket IS NULL AND ({where})"
        return self.db.execute(sql, (bucket, detail, *values)).rowcount

    def drop_all(self, bucket: str, found: Iterator[tuple[int, str]]) -> int:
        """Move rows given as (id, detail) into a bucket."""
        rows = ((bucket, detail, row) for row, detail in found)
        return self.db.executemany("UPDATE rows SET bucket = ?, detail = ? WHERE id = ?", rows).rowcount

    def close(self) -> None:
        self.db.close()
