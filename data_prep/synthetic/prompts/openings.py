"""First turns that longer prompts begin with: each is given out once, to one maker.

So no first turn of a dialogue, which is SFT data, is also the first turn of a prompt for preferences: what a dialogue
used is taken out of the prompts (bucket used_in_dialogue).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from data_prep.records import content_id
from data_prep.synthetic.prompts.draft import Draft


@dataclass(frozen=True)
class Opening:
    """origin: the id of the row that it comes from; draft: of that row, None for a row of the seeds file."""

    text: str
    origin: str
    draft: Draft | None = None


@dataclass
class Openings:
    """The pool, in an order drawn from the seed and each text alone: others coming or going do not shuffle it."""

    seed: int
    waiting: list[Opening] = field(default_factory=list)
    used: dict[tuple[str, int], Opening] = field(default_factory=dict)

    def add(self, more: Sequence[Opening]) -> None:
        self.waiting = sorted([*self.waiting, *more], key=lambda o: content_id(self.seed, o.text), reverse=True)

    def take(self, maker: str, drafts: Sequence[Draft]) -> None:
        """Give one to each draft, as draft.text; where none is left the draft is lost (no_opening)."""
        for draft in drafts:
            if not self.waiting:
                draft.bucket = "no_opening"
                continue
            opening = self.used[maker, draft.index] = self.waiting.pop()
            draft.text, draft.details["opening"] = opening.text, opening.origin
            if opening.draft is not None:
                draft.texts |= opening.draft.texts
