"""Requests that a text-only assistant cannot fulfil, from a few examples of ours.

The report (3.2.5) makes them from human examples, with refusals as answers; here the refusals are written later, by
whoever answers the prompts.
"""

from __future__ import annotations

from data_prep.synthetic.prompts.desk import Desk, lines_of, text_of
from data_prep.synthetic.prompts.draft import Draft, plan
from data_prep.synthetic.prompts.inputs import Given
from data_prep.synthetic.prompts.questions import spoken

AT_ONCE = 5  # requests of one list


def make(desk: Desk, options: dict, given: Given) -> list[Draft]:
    """options: rows, examples (shown to the model). What is missing (the internet, a body, ...) goes round."""
    examples: dict[str, list[str]] = {}
    for line in lines_of("incapable_examples"):
        kind, _, request = line.partition("|")
        examples.setdefault(kind.strip(), []).append(request.strip())
    kinds, drafts = list(examples), plan(options["rows"])
    groups = [drafts[start : start + AT_ONCE] for start in range(0, len(drafts), AT_ONCE)]
    for number, group in enumerate(groups):
        kind = kinds[number % len(kinds)]
        shots = desk.rng(number).sample(examples[kind], min(options["examples"], len(examples[kind])))
        for draft in group:
            draft.details |= {"kind": kind, "examples": shots}
            draft.texts["incapable_examples"] = text_of("incapable_examples").sha256
    desk.lists("requests", groups, "incapable", lambda draft: draft.details)
    return spoken(drafts)
