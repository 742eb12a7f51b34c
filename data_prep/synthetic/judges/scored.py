"""What points and rewards have in common: each response is judged alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from data_prep.synthetic.requests import Reply


@dataclass(frozen=True)
class Answer:
    """One response to the conversation `messages`."""

    messages: list[dict]
    text: str


@dataclass(frozen=True)
class Score:
    """value: None where there is none, and then `outcome` says why: unreadable or failed (else scored);
    found: what the row keeps beside the value: the attributes, or the points of every sample."""

    outcome: str
    value: float | None = None
    found: dict = field(default_factory=dict)
    said: str = ""


def missing(replies: Sequence[Reply], found: dict | None = None) -> Score:
    """The score of replies that give none."""
    error = next((reply.error for reply in replies if reply.error), "")
    unreadable = [reply.text for reply in replies if not reply.error]
    return Score("unreadable" if unreadable else "failed", found=found or {}, said=(unreadable or [error])[0])


def count(scores: Sequence[Score]) -> dict[str, int]:
    """Scores by outcome, all three."""
    counts = Counter(score.outcome for score in scores)
    return {name: counts[name] for name in ("scored", "unreadable", "failed")}
