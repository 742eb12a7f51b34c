"""Files that carry a hash of themselves, so that a changed byte in them shows although no other file names them.

A manifest has it as the key `self_sha256`, over its canonical JSON without that key; pipeline.yaml as its last line, a
comment, over the bytes above it. A seal tells of damage and of edits; it is no signature.
"""

from __future__ import annotations

import hashlib
import json
import re

from recipes.pipeline.files import canonical_json

SELF = "self_sha256"
_LAST_LINE = re.compile(rb"# sha256 of the lines above: ([0-9a-f]{64})\n")


def seal(content: dict) -> dict:
    """`content` with the hash of itself as its last key."""
    content = {key: value for key, value in content.items() if key != SELF}
    return {**content, SELF: hashlib.sha256(canonical_json(content).encode()).hexdigest()}


def intact(content: dict, raw: bytes) -> bool | None:
    """Is a sealed JSON file, read as `content` from `raw`, as it was written? None if it has no seal."""
    if SELF not in content:
        return None
    # The seal is over the content: spaces, order and escapes are compared with what files.atomic_write_json writes.
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    return seal(content)[SELF] == content[SELF] and text.encode() == raw


def seal_text(text: str) -> str:
    """`text` (whole lines) and a last line with its hash."""
    return f"{text}# sha256 of the lines above: {hashlib.sha256(text.encode()).hexdigest()}\n"


def text_intact(raw: bytes) -> bool | None:
    """Is a text of `seal_text` as it was written? None if it has no such last line."""
    cut = raw.rstrip(b"\n").rfind(b"\n") + 1
    found = _LAST_LINE.fullmatch(raw[cut:])
    return None if found is None else hashlib.sha256(raw[:cut]).hexdigest().encode() == found[1]
