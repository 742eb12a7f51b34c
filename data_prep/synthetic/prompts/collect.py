"""Drafts of all makers -> rows: what cannot be used or is there already goes to its bucket."""

from __future__ import annotations

from dataclasses import dataclass, field

from data_prep.keys import first_user, prompt_key
from data_prep.rules import RULES, BadRow
from data_prep.synthetic.prompts.draft import MADE, Draft, alive
from data_prep.synthetic.requests import Model
from data_prep.template import Template


@dataclass
class Collection:
    """elsewhere: first user turns, normalised, that no row may have (inputs.disjoint_from).

    Buckets: shared_prompt (elsewhere), duplicate (of an earlier row of the same file), and those of rules D2-D5
    (control_token, empty_text, ...) for a conversation that the template refuses.
    """

    model: Model
    template: Template
    elsewhere: set[str]
    seen: set[tuple[str, str]] = field(default_factory=set)
    rows: dict[str, list[tuple[Draft, dict]]] = field(default_factory=dict)

    def add(self, maker: str, drafts: list[Draft], file: str) -> None:
        """Make rows of those that are alive, in their order. file: that they will be in."""
        kept = self.rows.setdefault(maker, [])
        for draft in alive(drafts):
            draft.bucket = self._trouble(draft.messages, file) or MADE
            if draft.bucket == MADE:
                kept.append((draft, self._row(maker, draft)))

    def _trouble(self, messages: list[dict], file: str) -> str:
        try:
            self.template.check(messages, last=messages[-1]["role"])
        except BadRow as bad:
            return RULES[bad.rule].bucket
        key = file, prompt_key(messages)
        if first_user(messages) in self.elsewhere:
            return "shared_prompt"
        if key in self.seen:
            return "duplicate"
        self.seen.add(key)
        return ""

    def _row(self, maker: str, draft: Draft) -> dict:
        made_by = {"model": self.model.name, "model_sha256": self.model.sha256, "texts": draft.texts, **draft.details}
        return {
            "id": f"{maker}-{draft.name or f'{draft.index:06d}'}",
            "messages": draft.messages,
            **({"task": draft.task} if draft.task else {}),
            "source": f"synthetic_{maker}",
            "human": False,
            "made_by": made_by,
        }

    def final(self, maker: str) -> list[dict]:
        """The rows of a maker that no other has used up."""
        return [row for draft, row in self.rows.get(maker, ()) if draft.bucket == MADE]
