"""A file of rows cut into parts, so that several processes can read it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from data_prep.jsonl import BadLine, decode, read_rows, refuse


@dataclass(frozen=True)
class Part:
    """Bytes [start, stop) of a file; stop None: all of it."""

    path: Path
    start: int = 0
    stop: int | None = None

    @property
    def size(self) -> int:
        return (self.stop or self.path.stat().st_size) - self.start

    def rows(self) -> Iterable[tuple[int, dict]]:
        """(line within the part, row). Raises UserInputError that names the line within the file."""
        return _slice(self) if self.stop is not None else read_rows(self.path)


def parts(path: Path, rows_per_record: int, size: int) -> list[Part]:
    """A file cut every `size` bytes where it can be cut: a plain .jsonl file of which a row is a record. A row belongs
    to the part in which its line begins."""
    total = path.stat().st_size
    if path.suffix != ".jsonl" or rows_per_record > 1 or total <= size:
        return [Part(path)]
    return [Part(path, start, min(start + size, total)) for start in range(0, total, size)]


def numbered(pieces: list[Part]) -> Iterator[tuple[Part, int]]:
    """Each part of one file, in order, with the number of lines that begin before it."""
    lines, ends = 0, True
    with open(pieces[0].path, "rb") as stream:
        for part in pieces:
            yield part, lines if ends else lines + 1
            left = part.size
            while left > 0 and (block := stream.read(min(left, 1 << 20))):
                lines, ends = lines + block.count(b"\n"), block.endswith(b"\n")
                left -= len(block)


def _slice(part: Part) -> Iterator[tuple[int, dict]]:
    with open(part.path, "rb", buffering=1 << 20) as stream:
        at = part.start
        if at:
            stream.seek(at - 1)
            at += len(stream.readline()) - 1  # the rest of a line that began in the part before
        for number, raw in enumerate(stream, 1):
            if at >= part.stop:
                return
            at += len(raw)
            try:
                row = decode(raw)
            except BadLine as bad:
                raise refuse(part.path, number + _lines_before(part), str(bad), fix=bad.fix) from None
            yield number, row


def _lines_before(part: Part) -> int:
    """Lines that begin before the part, to name a line by its place in the file."""
    count = 0
    with open(part.path, "rb") as stream:
        left = part.start
        while left > 0 and (block := stream.read(min(left, 1 << 20))):
            count += block.count(b"\n")
            left -= len(block)
        stream.seek(max(part.start - 1, 0))
        return count + (1 if part.start and stream.read(1) != b"\n" else 0)
