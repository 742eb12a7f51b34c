"""Headers of safetensors files: 8 bytes with the length of a JSON object, the object, then the tensors' bytes.

source: github.com/huggingface/safetensors, README, "Format"
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path

SIZES = {"BF16": 2, "F16": 2, "F32": 4}  # bytes an element, of the types that are converted
HEADER_LIMIT = 100_000_000  # bytes; the format's own


class Damaged(ValueError):
    """The file cannot be what it says it is."""


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies: `size` bytes at `start` of `file`."""

    file: Path
    dtype: str  # BF16, F16, F32 or another of the format's names
    shape: tuple[int, ...]
    start: int
    size: int


def read(file: Path) -> dict[str, Entry]:
    """Every tensor of a file by name, from its header. Raises Damaged for one that is cut off or of another kind."""
    total = file.stat().st_size
    with file.open("rb") as source:
        first = source.read(8)
        length = struct.unpack("<Q", first)[0] if len(first) == 8 else None
        if length is None or length > min(total - 8, HEADER_LIMIT):
            raise Damaged(f"has {total} bytes, fewer than its header needs")
        try:
            header = json.loads(source.read(length))
            header.pop("__metadata__", None)
            found = {name: _entry(file, entry, 8 + length) for name, entry in header.items()}
        except (ValueError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
            raise Damaged(f"has a header that cannot be read: {error}") from None
    end = max((entry.start + entry.size for entry in found.values()), default=8 + length)
    if end != total:
        raise Damaged(f"has {total} bytes, its header describes {end}")
    return found


def _entry(file: Path, entry: dict, base: int) -> Entry:
    begin, end = entry["data_offsets"]
    shape, dtype = tuple(entry["shape"]), entry["dtype"]
    if dtype in SIZES and prod(shape) * SIZES[dtype] != end - begin:
        raise ValueError(f"{end - begin} bytes for the shape {list(shape)} of {dtype}")
    return Entry(file, dtype, shape, base + begin, end - begin)


def header(entries: list[tuple[str, str, tuple[int, ...]]]) -> bytes:
    """The first bytes of a file that holds these (name, type, shape) one after the other."""
    described, at = {"__metadata__": {"format": "pt"}}, 0
    for name, dtype, shape in entries:
        size = prod(shape) * SIZES[dtype]
        described[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of 8
    return struct.pack("<Q", len(text)) + text
