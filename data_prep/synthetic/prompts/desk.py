"""How makers ask: one call of the model for all drafts of a step, answers read, losses put in buckets.

Nothing depends on the order in which answers arrive: draws are keyed by maker and index, and equal requests are told
apart by how often a maker has asked them before (backends add that to the seed that a server gets).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from data_prep.records import content_id
from data_prep.rules import BadRow
from data_prep.synthetic.prompts.answers import only_text
from data_prep.synthetic.prompts.draft import Draft, alive, user
from data_prep.synthetic.prompts.lists import headline, parse_list
from data_prep.synthetic.requests import Model, Reply, Request, Sampling
from data_prep.synthetic.texts import Text
from data_prep.template import Template

STREAM = 1_000_000  # sample numbers of one stream

text_of = lru_cache(maxsize=128)(Text.load)


def lines_of(name: str) -> list[str]:
    """The lines of a text that is a list: personalities, manners, angles."""
    return [line.strip() for line in text_of(name).render().splitlines() if line.strip()]


@dataclass
class Desk:
    """One maker's way to the model. Buckets that it fills: failed (no answer), unfinished (cut at max_tokens),
    control_token (a token of the chat template in the answer), unreadable (not what was asked for), missing (a list
    that is too short)."""

    model: Model
    sampling: Sampling
    seed: int
    maker: str
    template: Template
    asked_before: Counter = field(default_factory=Counter)

    def rng(self, *key: object) -> random.Random:
        return random.Random("/".join(map(str, (self.seed, self.maker, *key))))

    def write(
        self,
        step: str,
        drafts: Sequence[Draft],
        text: str,
        values: Callable[[Draft], dict],
        read: Callable[[str], str | None] = only_text,
        stream: Callable[[Draft], int] = lambda draft: 0,
    ) -> None:
        """Ask for one text a draft: draft.text is the answer as `read` gives it (None is unreadable).

        stream: equal requests of different streams are told apart without counting each other's.
        """
        used, drafts = text_of(text), alive(drafts)
        messages = [[user(used.render(**values(draft)))] for draft in drafts]
        for draft, reply in zip(drafts, self._ask(step, messages, used.sha256, list(map(stream, drafts)))):
            draft.texts[used.name] = used.sha256
            draft.text = reply.text or reply.error
            draft.bucket = self._trouble(reply) or ("" if reply.finished else "unfinished")
            if not draft.bucket:
                _set(draft, read(reply.text))

    def lists(
        self,
        step: str,
        groups: Sequence[Sequence[Draft]],
        text: str,
        values: Callable[[Draft], dict],
        short: bool = False,
    ) -> None:
        """Ask for one list a group, of as many items as it has drafts: each draft.text is one item.

        values: of the first draft of a group; `n` is added. short: items are names, not sentences.
        """
        used, groups = text_of(text), [group for group in map(alive, groups) if group]
        messages = [[user(used.render(**values(group[0]), n=len(group)))] for group in groups]
        for group, reply in zip(groups, self._ask(step, messages, used.sha256)):
            items = parse_list(reply.text)
            trouble = self._trouble(reply) or ("" if items else "unreadable")
            if not reply.finished:  # the last item may be torn
                items, trouble = items[:-1], trouble if trouble != "unreadable" else "unfinished"
            for place, draft in enumerate(group):
                draft.texts[used.name] = used.sha256
                if trouble or place >= len(items):
                    draft.bucket = trouble or ("missing" if reply.finished else "unfinished")
                    draft.text = reply.text or reply.error
                else:
                    _set(draft, headline(items[place]) if short else items[place])

    def answer(self, step: str, drafts: Sequence[Draft], conversation: Callable[[Draft], list[dict]]) -> None:
        """Ask for the assistant's turn of a conversation: draft.text is the answer."""
        drafts = alive(drafts)
        for draft, reply in zip(drafts, self._ask(step, [conversation(draft) for draft in drafts], "")):
            draft.text = reply.text.strip() or reply.error
            draft.bucket = self._trouble(reply) or ("" if reply.finished else "unfinished")

    def _ask(
        self, step: str, conversations: list[list[dict]], sha256: str, streams: Sequence[int] = ()
    ) -> list[Reply]:
        if not conversations:
            return []
        streams = streams or [0] * len(conversations)
        requests = [self._request(messages, sha256, stream) for messages, stream in zip(conversations, streams)]
        return self.model.ask(requests, f"{self.maker}: {step}")

    def _request(self, messages: list[dict], sha256: str, stream: int) -> Request:
        key = content_id(messages, sha256, stream)
        sample = stream * STREAM + self.asked_before[key]
        self.asked_before[key] += 1
        return Request(tuple(messages), replace(self.sampling, seed=self.seed), sha256, sample)

    def _trouble(self, reply: Reply) -> str:
        if reply.error:
            return "failed"
        if not reply.text.strip():
            return "unreadable"
        try:
            self.template.check_control(reply.text, "answer")
        except BadRow:
            return "control_token"
        return ""

    def greedy(self) -> Desk:
        """The same desk, decoding greedily."""
        return replace(self, sampling=replace(self.sampling, temperature=0.0, top_p=1.0))


def _set(draft: Draft, text: str | None) -> None:
    if text:
        draft.text = text
    else:
        draft.bucket = "unreadable"
