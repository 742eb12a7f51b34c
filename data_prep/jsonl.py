"""Read and write row files: .jsonl, .json (one array), either with .gz. Reading is streaming and never writes.

Bad bytes are refused with the file and line: what a trainer would only meet hours later, on every rank at once.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from data_prep.rules import RULES
from recipes.errors import Problem, UserInputError

BOM = b"\xef\xbb\xbf"


def refuse(
    path: Path | str, line: int | None, message: str, rule: str = "D1", fix: str | None = None
) -> UserInputError:
    """The error for one bad line of a file (line None: the file as a whole)."""
    where = f"{path}:{line}" if line else str(path)
    return UserInputError(Problem(rule, where, message, fix or RULES[rule].fix))


def read_rows(path: Path | str) -> Iterator[tuple[int, dict]]:
    """Yield (line number from 1, row) of a .jsonl or .json file, .gz or not.

    For a .json array the number is the position of the row in the array. Raises UserInputError (D1) on a blank line,
    a byte-order mark, bytes that are not UTF-8, text that is not JSON, a row that is not an object or repeats a key.
    """
    path = Path(path)
    if not path.is_file():
        raise refuse(path, None, "there is no such file", fix="check the path of this input")
    with _open_binary(path) as stream:
        if path.name.removesuffix(".gz").endswith(".json"):
            yield from _read_array(path, stream.read())
            return
        for number, raw in enumerate(stream, 1):
            yield number, _decode(path, number, raw)


def _open_binary(path: Path) -> io.BufferedIOBase:
    return gzip.open(path, "rb") if path.name.endswith(".gz") else open(path, "rb")


def _decode(path: Path, number: int, raw: bytes) -> dict:
    if raw.startswith(BOM):
        raise refuse(path, number, "starts with a byte-order mark")
    if not raw.strip():
        raise refuse(path, number, "is blank", fix="remove the blank line")
    try:
        row = _DECODER.decode(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise refuse(path, number, f"byte {error.start} of the line is not UTF-8") from None
    except json.JSONDecodeError as error:
        hint = " (a trailing comma?)" if raw.rstrip().endswith(b",") or b",}" in raw or b", }" in raw else ""
        raise refuse(path, number, f"is not JSON: {error.msg} at column {error.colno}{hint}") from None
    except ValueError as error:
        raise refuse(path, number, str(error)) from None
    if not isinstance(row, dict):
        raise refuse(path, number, f"is a JSON {type(row).__name__}, not an object")
    return row


def _unique(pairs: list[tuple[str, object]]) -> dict:
    row = dict(pairs)
    if len(row) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(k for k in keys if keys.count(k) > 1)!r} occurs twice in one object")
    return row


_DECODER = json.JSONDecoder(object_pairs_hook=_unique)


def _read_array(path: Path, raw: bytes) -> Iterator[tuple[int, dict]]:
    if raw.startswith(BOM):
        raise refuse(path, 1, "starts with a byte-order mark")
    try:
        rows = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        raise refuse(path, raw[: error.start].count(b"\n") + 1, "is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise refuse(
            path,
            error.lineno,
            f"is not JSON: {error.msg} at column {error.colno}",
            fix="name a file with one row a line *.jsonl; a *.json file must be one array",
        ) from None
    except ValueError as error:
        raise refuse(path, None, str(error)) from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise refuse(path, None, "a *.json file must be one array of objects")
    yield from enumerate(rows, 1)


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def dump(row: dict) -> str:
    """One row as one line, without the newline: UTF-8 text, compact, keys in the order of the row."""
    return _ENCODER.encode(row)


class AtomicFile:
    """Write lines to a hidden file beside the target, then rename: a file at its final name is complete.

    with AtomicFile(directory) as out: out.write(row); path = out.commit(lambda sha256: "name.jsonl")
    Leaving the block without `commit` removes the hidden file.
    """

    def __init__(self, directory: Path | str):
        self.directory = Path(directory)
        self.rows, self._digest, self._done = 0, hashlib.sha256(), False

    def __enter__(self) -> AtomicFile:
        self.directory.mkdir(parents=True, exist_ok=True)
        handle, self._temporary = tempfile.mkstemp(prefix=".part-", dir=self.directory)
        self._stream = os.fdopen(handle, "wb")
        return self

    def write(self, row: dict) -> None:
        data = (dump(row) + "\n").encode("utf-8")
        self._digest.update(data)
        self._stream.write(data)
        self.rows += 1

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def commit(self, name: str) -> Path:
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        target = self.directory / name
        os.chmod(self._temporary, 0o644)  # mkstemp makes it private to the user
        os.replace(self._temporary, target)
        self._done = True
        return target

    def __exit__(self, *_) -> None:
        if not self._done:
            self._stream.close()
            os.unlink(self._temporary)


def write_rows(path: Path | str, rows: Iterable[dict]) -> int:
    """Write rows to `path` (.jsonl) atomically; returns how many."""
    path = Path(path)
    with AtomicFile(path.parent) as out:
        for row in rows:
            out.write(row)
        out.commit(path.name)
    return out.rows


def file_sha256(path: Path | str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
