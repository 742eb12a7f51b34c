"""The one typed record that every adapter produces and every writer consumes.

A record is a conversation up to a user turn and the candidate responses to it. What a trainer needs is a view of it
(formats.py): SFT takes the preferred response, DPO and RPO two of them, a regression reward model one with attributes.
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


@dataclass(slots=True)
class Response:
    """One candidate. reward: a judge's scalar; attributes: rated slots by name (LABEL_SLOTS), unrated ones are absent;
    model: who wrote it, "" where the source does not say."""

    text: str
    reward: float | None = None
    attributes: dict[str, float] = field(default_factory=dict)
    model: str = ""

    @property
    def label(self) -> list[float]:
        """The nine numbers of a regression label, UNKNOWN where nobody rated."""
        return [self.attributes.get(name, UNKNOWN) for name in LABEL_SLOTS]


@dataclass(slots=True)
class Record:
    """messages: the prompt, ending in a user turn (empty for plain text);
    responses: one for SFT and ratings, two for a comparison;
    preferred: index of the better response, None for a tie or where nothing was compared;
    strength: how much better on the source's own scale (HelpSteer: 1..3), None where it has none;
    line: from 1 in the source file; id: the row's own, "" where it has none; human: written or judged by people;
    source: name of the data set; judge: hash or name of the model whose rewards these are, "" where nobody says."""

    messages: list[dict]
    responses: list[Response]
    preferred: int | None = None
    strength: float | None = None
    line: int = 0
    id: str = ""
    source: str = ""
    human: bool = False
    judge: str = ""

    @property
    def chosen(self) -> Response:
        return self.responses[self.preferred or 0]

    @property
    def rejected(self) -> Response:
        return self.responses[1 - (self.preferred or 0)]


_CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=False)


def content_id(*parts: object) -> str:
    """Short id of JSON-able content: 16 hex digits of sha256, the same on every machine."""
    return hashlib.sha256(_CANONICAL.encode(parts).encode()).hexdigest()[:16]
