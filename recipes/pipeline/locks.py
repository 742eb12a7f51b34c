"""One writer a run directory: an advisory lock that the kernel drops when its process dies, however it dies."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = ".lock"


class Locked(Exception):
    """Someone else holds the lock; `pid` is theirs (0 if it could not be read)."""

    def __init__(self, path: Path, pid: int):
        self.pid = pid
        super().__init__(f"{path} is held by process {pid or '?'}")


class DirLock:
    """Lock of `directory`, held from `acquire` to `release`. The file keeps the pid of its last holder."""

    def __init__(self, directory: str | Path):
        self.path = Path(directory) / LOCK
        self._file = None

    def acquire(self) -> None:
        """Take the lock or raise Locked. Waits half a second, because `holder` takes it for a moment to look."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = open(self.path, "a+", encoding="utf-8")  # not inherited by children: Python opens with O_CLOEXEC
        for last in (False, False, False, False, False, True):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if last:
                    file.close()
                    raise Locked(self.path, _pid(self.path)) from None
                time.sleep(0.1)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        self._file = file

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> DirLock:
        self.acquire()
        return self

    def __exit__(self, *_) -> None:
        self.release()


def holder(directory: str | Path) -> int | None:
    """Pid of the process that holds the lock of `directory`, 0 if held by an unknown one, None if nobody does."""
    path = Path(directory) / LOCK
    try:
        with open(path, encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return _pid(path)
    return None


def _pid(path: Path) -> int:
    text = path.read_text(encoding="utf-8").strip()
    return int(text) if text.isdigit() else 0


@contextmanager
def waiting_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock of this file; waits for whoever has it."""
    with open(path, "a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
