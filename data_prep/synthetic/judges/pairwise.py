"""A language model compares two responses to one prompt, in both orders; only a verdict that survives the swap counts.

The Nemotron-4 340B report (arXiv 2406.11704, section 3.2.3) makes the pairs of its early iterations this way. What
asking once would cost: a GPT-4 judge of 2023 gave another outcome for 32.4 % of 20,013 pairs when the responses changed
places (QLoRA's published ratings, as `align data agreement` counts them).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from data_prep.synthetic.judges import reading
from data_prep.synthetic.judges.reading import FIRST, SECOND, TIE
from data_prep.synthetic.requests import Model, Reply, Request, Sampling
from data_prep.synthetic.texts import Text

OUTCOMES = ("consistent", "tie", "inconsistent", "unreadable", "failed")


@dataclass(frozen=True)
class Comparison:
    """Two different responses (texts) to the conversation `messages`."""

    messages: list[dict]
    responses: tuple[str, str]


@dataclass(frozen=True)
class Verdict:
    """What the judge made of one comparison.

    outcome: consistent (the same response won in both orders), tie (neither did in both), inconsistent (all other
    combinations of two labels), unreadable (a reply without a label, or cut at max_tokens), failed (no reply);
    winner: 0 or 1 where consistent, else None; labels: of the order (0, 1) and of (1, 0), None where there is none;
    said: the two replies as they came, or the error.
    """

    outcome: str
    winner: int | None
    labels: tuple[str | None, str | None]
    said: tuple[str, str]

    @property
    def readable(self) -> bool:
        return None not in self.labels

    @property
    def slots(self) -> int:
        """How far the labels follow the place: 2 and -2, the first and the second slot in both orders; 1 and -1, in
        one order and a tie in the other; 0, not at all. For readable verdicts."""
        return sum({FIRST: 1, SECOND: -1, TIE: 0}[label] for label in self.labels)


class Pairwise:
    """Asks `model` with the prompt template `text`, whose values are messages, first and second."""

    kind = "pairwise"

    def __init__(self, model: Model, text: Text, sampling: Sampling):
        self.model, self.text, self.sampling = model, text, sampling

    def compare(self, comparisons: Sequence[Comparison], what: str = "comparisons") -> list[Verdict]:
        """One verdict a comparison, in their order. Raises what Model.ask does."""
        requests = [self._request(c, order) for c in comparisons for order in ((0, 1), (1, 0))]
        replies = self.model.ask(requests, what)
        return [verdict(first, second) for first, second in zip(replies[::2], replies[1::2], strict=True)]

    def _request(self, comparison: Comparison, order: tuple[int, int]) -> Request:
        first, second = (comparison.responses[i] for i in order)
        content = self.text.render(messages=comparison.messages, first=first, second=second)
        return Request(({"role": "user", "content": content},), self.sampling, self.text.sha256)


def verdict(first: Reply, second: Reply) -> Verdict:
    """The verdict of two replies, to the order (0, 1) and to (1, 0)."""
    replies = (first, second)
    labels = tuple(reading.label(r.text) if r.finished and not r.error else None for r in replies)
    said = tuple(reply.error or reply.text for reply in replies)
    if any(reply.error for reply in replies):
        return Verdict("failed", None, labels, said)
    if None in labels:
        return Verdict("unreadable", None, labels, said)
    if labels == (TIE, TIE):
        return Verdict("tie", None, labels, said)
    winner = {(FIRST, SECOND): 0, (SECOND, FIRST): 1}.get(labels)
    return Verdict("inconsistent" if winner is None else "consistent", winner, labels, said)


def summary(verdicts: Sequence[Verdict]) -> dict:
    """outcomes: comparisons by outcome; order_consistency: share of the readable ones with the same outcome in both
    orders (consistent and tie); first_share: share of the first slot among the labels A and B, None without any."""
    outcomes = Counter(v.outcome for v in verdicts)
    labels = Counter(label for v in verdicts if v.readable for label in v.labels)
    readable, won = sum(labels.values()) // 2, labels[FIRST] + labels[SECOND]
    return {
        "outcomes": {name: outcomes[name] for name in OUTCOMES},
        "order_consistency": (outcomes["consistent"] + outcomes["tie"]) / readable if readable else None,
        "first_share": labels[FIRST] / won if won else None,
    }


def pick(
    texts: Sequence[str], which: str, limit: int, rng: random.Random
) -> tuple[list[tuple[int, int]], int]:
    """(the pairs (i, j), i < j, of one prompt's responses to compare, how many were left out because their texts are
    equal). which: "all", or "first", the first response against each other one; limit: at most so many of them, drawn
    by rng, 0 for all."""
    ends = range(1 if which == "first" else len(texts))
    pairs = [(i, j) for i in ends for j in range(i + 1, len(texts))]
    different = [(i, j) for i, j in pairs if texts[i] != texts[j]]
    chosen = sorted(rng.sample(different, limit)) if limit and len(different) > limit else different
    return chosen, len(pairs) - len(different)
