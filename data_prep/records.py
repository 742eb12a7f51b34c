"""The typed records that every adapter produces and every writer consumes.

`messages` everywhere is the list of {role, content} described in template.py.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

# Slot order of a NeMo-Aligner regression label (SteerLM and HelpSteer); helpfulness must stay at index 4, which the
# Bradley-Terry losses of NeMo-Aligner 0.7.0 hard-code.
LABEL_SLOTS = (
    "quality",
    "toxicity",
    "humor",
    "creativity",
    "helpfulness",
    "correctness",
    "coherence",
    "complexity",
    "verbosity",
)
HELPSTEER_SLOTS = LABEL_SLOTS[4:]
UNKNOWN = -100.0  # NeMo-Aligner's model.loss_mask_val: this attribute is not in the loss


@dataclass
class Record:
    """Where a row comes from. line: from 1 in the source file; human: written or judged by people."""

    line: int = 0
    id: str = ""
    source: str = ""
    human: bool = False


@dataclass
class Conversation(Record):
    """One SFT example; ends in an assistant turn."""

    messages: list[dict] = field(default_factory=list)


@dataclass
class Pair(Record):
    """One preference: prompt ends in a user turn; rewards None where the source has none."""

    prompt: list[dict] = field(default_factory=list)
    chosen: str = ""
    rejected: str = ""
    chosen_reward: float | None = None
    rejected_reward: float | None = None


@dataclass
class Rating(Record):
    """One rated response; label in the order of LABEL_SLOTS, UNKNOWN where nobody rated it."""

    prompt: list[dict] = field(default_factory=list)
    response: str = ""
    label: list[float] = field(default_factory=list)


@dataclass
class Text(Record):
    """One plain text for language modelling."""

    text: str = ""


_CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=False)


def content_id(*parts: object) -> str:
    """Short id of JSON-able content: 16 hex digits of sha256, the same on every machine."""
    return hashlib.sha256(_CANONICAL.encode(parts).encode()).hexdigest()[:16]
