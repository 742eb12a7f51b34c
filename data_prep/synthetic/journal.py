"""What has been answered so far, on disk: an append-only file of replies, one line each, found by Request.key.

    <folder>/replies.jsonl   {"key", "text", "finished", "prompt_tokens", "tokens", "model"}
    <folder>/failed.jsonl    {"key", "error", "time"}: failed after all retries; asked again the next time

A reply is handed to the kernel in one write before anything else happens, so a process that is killed loses nothing
that it had received. fsync follows every few seconds and at the end: a machine that loses power loses at most that
much, and asks it again. In memory there is one key and one offset for a reply, about 200 bytes, never its text.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson

from data_prep.synthetic.requests import Reply
from recipes.errors import StageFailed
from recipes.pipeline.locks import DirLock, Locked

REPLIES, FAILED = "replies.jsonl", "failed.jsonl"
SYNC_SECONDS = 5.0
_FIELDS = ("text", "finished", "prompt_tokens", "tokens", "model")


class Journal:
    """The replies in `folder`. Everything but `in` and `len` needs `with journal.writing():`, which one process at a
    time can enter; it takes in what others have written since.

    damaged: lines that could not be read (a machine that lost power can leave some); they are asked again.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        self.damaged = 0
        self._offsets: dict[bytes, int] = {}
        self._end = 0  # the file is known up to here
        self._file_id: tuple[int, int] | None = None
        self._file: int | None = None
        self._reader = None
        self._failed = None
        self._synced = 0.0

    def __contains__(self, key: str) -> bool:
        return key.encode() in self._offsets

    def __len__(self) -> int:
        return len(self._offsets)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the folder's lock and know all of the file. Raises StageFailed if another process holds it."""
        lock = DirLock(self.folder)
        try:
            lock.acquire()
        except Locked as error:
            raise StageFailed(f"another process is asking its requests here: {error}") from None
        try:
            self._open()
            yield
        finally:
            self._close()
            lock.release()

    def add(self, key: str, reply: Reply) -> None:
        """Keep a reply. The first one of a key stays, as it may have been used already."""
        if key in self:
            return
        row = {"key": key, **{name: getattr(reply, name) for name in _FIELDS}}
        line = orjson.dumps(row) + b"\n"
        self._append(line)
        self._offsets[key.encode()] = self._end
        self._end += len(line)
        if time.monotonic() - self._synced > SYNC_SECONDS:
            self._sync()

    def fail(self, key: str, error: str) -> None:
        """Note that a request failed for good this time."""
        self._failed.write(json.dumps({"key": key, "error": error, "time": time.time()}, ensure_ascii=False) + "\n")
        self._failed.flush()

    def read(self, key: str) -> Reply:
        """The reply of a key that is `in` the journal."""
        self._reader.seek(self._offsets[key.encode()])
        row = orjson.loads(self._reader.readline())
        return Reply(**{name: row[name] for name in _FIELDS})

    # -- the file

    def _open(self) -> None:
        path = self.folder / REPLIES
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        self._reader = open(path, "rb")
        self._failed = open(self.folder / FAILED, "a", encoding="utf-8")
        self._take_in()
        self._sync()
        handle = os.open(self.folder, os.O_RDONLY)
        os.fsync(handle)  # the names of new files
        os.close(handle)

    def _take_in(self) -> None:
        """Index what was appended since the last time; cut off a last line that a kill tore."""
        state = os.fstat(self._file)
        file_id = (state.st_dev, state.st_ino)
        if file_id != self._file_id or state.st_size < self._end:
            self._file_id, self._end, self.damaged = file_id, 0, 0
            self._offsets.clear()
        self._reader.seek(self._end)
        for line in self._reader:
            if not line.endswith(b"\n"):
                os.ftruncate(self._file, self._end)
                break
            key = _key(line)
            if key is None:
                self.damaged += 1
            else:
                self._offsets.setdefault(key, self._end)
            self._end += len(line)

    def _append(self, line: bytes) -> None:
        """All of the line or, on a full disk, nothing of it: a torn line would swallow the next one."""
        try:
            written = os.write(self._file, line)
            if written != len(line):
                raise OSError(f"{self.folder / REPLIES}: the disk took {written} of {len(line)} bytes")
        except OSError:
            os.ftruncate(self._file, self._end)
            raise

    def _sync(self) -> None:
        os.fsync(self._file)
        self._synced = time.monotonic()

    def _close(self) -> None:
        if self._file is not None:
            self._sync()
            os.close(self._file)
        for file in (self._reader, self._failed):
            if file is not None:
                file.close()
        self._file = self._reader = self._failed = None


def _key(line: bytes) -> bytes | None:
    """The key of a complete row, None if the line is not one."""
    try:
        row = orjson.loads(line)
        for name in _FIELDS:
            row[name]
        return row["key"].encode()
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
