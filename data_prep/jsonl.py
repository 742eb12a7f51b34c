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
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import orjson

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
    """Yield (line number from 1, row) of a .jsonl, .json or .parquet file, the first two with .gz or not.

    For a .json array and for Parquet the number is the position of the row. Raises UserInputError (D1) on a blank line,
    a byte-order mark, bytes that are not UTF-8, text that is not JSON, a row that is not an object or repeats a key.
    """
    path = Path(path)
    if not path.is_file():
        message = "is a directory, not a file" if path.is_dir() else "there is no such file"
        raise refuse(path, None, message, fix="check the path of this input")
    if path.suffix == ".parquet":
        from data_prep.parquet import read_parquet

        yield from read_parquet(path)
        return
    is_array, number = path.name.removesuffix(".gz").endswith(".json"), 0
    with open_binary(path) as stream:
        try:
            if is_array:
                rows = enumerate(_array(path, stream.read()), 1)
            else:
                for number, raw in enumerate(stream, 1):
                    yield number, decode(raw)
        except BadLine as bad:
            raise refuse(path, number, str(bad), fix=bad.fix) from None
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            where = None if is_array else number + 1
            raise refuse(path, where, f"the gzip stream is damaged: {error}", fix="fetch the file again") from None
    if is_array:
        yield from rows


def open_binary(path: Path) -> io.BufferedIOBase:
    return gzip.open(path, "rb") if path.name.endswith(".gz") else open(path, "rb")


_HALF = "holds half of a surrogate pair (\\ud800..\\udfff), which is no character"


class BadLine(ValueError):
    """A line that is no row (rule D1). fix: None = the rule's own."""

    def __init__(self, message: str, fix: str | None = None):
        super().__init__(message)
        self.fix = fix


def decode(raw: bytes) -> dict:
    """One line -> row. Raises BadLine.

    orjson is strict about UTF-8 and numbers and quick, but keeps the last of two equal keys. Every key and every text
    value of a JSON line has two quotes, and quotes inside them are escaped, so counting quotes tells, at the cost of a
    scan, whether a key was lost.
    """
    try:
        row = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return _decode_slowly(raw)
    if type(row) is not dict:
        raise BadLine(f"is a JSON {type(row).__name__}, not an object")
    try:
        expected = _quotes(row)
    except RecursionError:
        expected = -1
    if raw.count(b'"') != expected or b"\\u0022" in raw:
        return _decode_slowly(raw)
    return row


def _quotes(value: object) -> int:
    """Quotes in the JSON text of a parsed value whose texts write a quote as \\"."""
    kind = type(value)
    if kind is str:
        return 2 + value.count('"')
    if kind is dict:
        count = 2 * len(value)
        for key, item in value.items():
            count += key.count('"')
            kind = type(item)
            if kind is str:
                count += 2 + item.count('"')
            elif kind is dict or kind is list:
                count += _quotes(item)
        return count
    return sum(map(_quotes, value)) if kind is list else 0


def _decode_slowly(raw: bytes) -> dict:
    """The standard library's decoder: says what is wrong and where, sees doubled keys, lets NaN through to the rules
    about rewards and labels, which name the field."""
    if raw.startswith(BOM):
        raise BadLine("starts with a byte-order mark")
    if not raw.strip():
        raise BadLine("is blank", "remove the blank line")
    try:
        row = _DECODER.decode(raw.decode("utf-8"))
        json.dumps(row, ensure_ascii=False).encode("utf-8")  # a lone half of a surrogate pair cannot be written again
    except UnicodeDecodeError as error:
        raise BadLine(f"byte {error.start} of the line is not UTF-8") from None
    except UnicodeEncodeError:
        raise BadLine(_HALF) from None
    except json.JSONDecodeError as error:
        hint = " (a trailing comma?)" if raw.rstrip().endswith(b",") or b",}" in raw or b", }" in raw else ""
        raise BadLine(f"is not JSON: {error.msg} at column {error.colno}{hint}") from None
    except RecursionError:
        raise BadLine("is nested too deeply") from None
    except ValueError as error:
        raise BadLine(str(error)) from None
    if not isinstance(row, dict):
        raise BadLine(f"is a JSON {type(row).__name__}, not an object")
    return row


def _unique(pairs: list[tuple[str, object]]) -> dict:
    row = dict(pairs)
    if len(row) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(k for k in keys if keys.count(k) > 1)!r} occurs twice in one object")
    return row


_DECODER = json.JSONDecoder(object_pairs_hook=_unique)


def _array(path: Path, raw: bytes) -> list[dict]:
    if raw.startswith(BOM):
        raise refuse(path, 1, "starts with a byte-order mark")
    try:
        rows = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique)
        if b"\\u" in raw:
            json.dumps(rows, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise refuse(path, raw[: error.start].count(b"\n") + 1, "is not UTF-8") from None
    except UnicodeEncodeError:
        raise BadLine(_HALF) from None
    except RecursionError:
        raise BadLine("is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise refuse(
            path,
            error.lineno,
            f"is not JSON: {error.msg} at column {error.colno}",
            fix="name a file with one row a line *.jsonl; a *.json file must be one array",
        ) from None
    except ValueError as error:
        raise BadLine(str(error)) from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BadLine("a *.json file must be one array of objects")
    return rows


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
        self.write_lines((dump(row) + "\n").encode("utf-8"))

    def write_lines(self, data: bytes) -> None:
        """Whole lines, ready made."""
        self._digest.update(data)
        self._stream.write(data)
        self.rows += data.count(b"\n")

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
