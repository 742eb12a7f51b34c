"""One planned prompt on its way through a maker: it ends as a row, or in the bucket that says why there is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

MADE = "made"


@dataclass(slots=True)
class Draft:
    """index: place in its maker's plan, the same whatever becomes of the others;
    name: what the row's id has instead of the index, if not "";
    text: what the last step wrote, or the answer that could not be used;
    bucket: why it was lost, "" while it is alive (MADE once it is a row);
    messages, task: of the row, set by the last step; details: what the row records beside the texts;
    texts: {name: sha256} of the prompt texts that had a part in it."""

    index: int
    text: str = ""
    bucket: str = ""
    messages: list[dict] = field(default_factory=list)
    task: dict | None = None
    details: dict = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    name: str = ""


@dataclass(frozen=True)
class Subject:
    """What prompts are about: a topic or a keyword. level: the one that it was found at, None where it fits any;
    texts: as in Draft."""

    text: str
    level: str | None = None
    texts: dict[str, str] = field(default_factory=dict)

    def draft(self, index: int, **details: object) -> Draft:
        """A draft of a prompt about it."""
        return Draft(index, details=details, texts=dict(self.texts))


def alive(drafts: Iterable[Draft]) -> list[Draft]:
    """Those that nothing has happened to yet."""
    return [draft for draft in drafts if not draft.bucket]


def plan(count: int) -> list[Draft]:
    return [Draft(index) for index in range(count)]


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict:
    return {"role": "assistant", "content": text}


def counts(drafts: list[Draft]) -> dict[str, int]:
    """{"asked": all of them, bucket: how many, ...}; the buckets add up to `asked`."""
    return {"asked": len(drafts), **dict(sorted(Counter(draft.bucket for draft in drafts).items()))}
