"""What a judge said -> a label, points or a reward. None: it cannot be read, which is never given a meaning here."""

from __future__ import annotations

import math
import re

FIRST, SECOND, TIE = "A", "B", "C"
LEAST, MOST = 1, 10
_MARK = re.compile(r"\[\[([^\[\]]*)\]\]")
_POINTS = re.compile(r"\d{1,2}")
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_SCALAR = re.compile(_NUMBER)
_ATTRIBUTES = re.compile(rf"[a-z_]+:{_NUMBER}(?:,[a-z_]+:{_NUMBER})*")


def label(text: str) -> str | None:
    """A, B or C of the last `[[...]]` of the text; a judge may weigh both sides aloud before that. None if the last
    one is something else, also where an earlier one is a label."""
    found = _last(text)
    return found if found in (FIRST, SECOND, TIE) else None


def points(text: str) -> int | None:
    """The whole number 1..10 of the last `[[...]]` of the text."""
    found = _last(text)
    value = int(found) if found and _POINTS.fullmatch(found) else 0
    return value if LEAST <= value <= MOST else None


def _last(text: str) -> str | None:
    found = _MARK.findall(text)
    return found[-1].strip() if found else None


def reward(text: str) -> float | dict[str, float] | None:
    """The content that reward models behind a chat endpoint answer with: `helpfulness:1.2578,correctness:0.5,...` from
    those of several attributes (Nemotron-4-340B-Reward), one number from the others. As sent, never rounded."""
    compact = re.sub(r"\s*([,:])\s*", r"\1", text.strip())
    if _SCALAR.fullmatch(compact):
        value = float(compact)
        return value if math.isfinite(value) else None
    if not _ATTRIBUTES.fullmatch(compact):
        return None
    pairs = [item.split(":") for item in compact.split(",")]
    values = {name: float(value) for name, value in pairs}
    return values if len(values) == len(pairs) and all(map(math.isfinite, values.values())) else None
