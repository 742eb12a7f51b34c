"""Prompts with constraints that a program can check, so that every answer can be verified.

Three variants, as in the report (3.2.1): the constraints of one answer; constraints that the first turn makes for all
following ones, verified on the answer to the second; and a second turn that wants the first answer revised.
"""

from __future__ import annotations

import random

from data_prep.synthetic.constraints import KINDS, compatible
from data_prep.synthetic.prompts import turns
from data_prep.synthetic.prompts.desk import Desk, text_of
from data_prep.synthetic.prompts.draft import Draft, alive, plan, user
from data_prep.synthetic.prompts.inputs import Given
from data_prep.synthetic.prompts.two_turn import follow_up

ANSWER, TURNS, REVISE = "answer", "turns", "revise"  # scopes in constrained.jinja


def make(desk: Desk, options: dict, given: Given) -> list[Draft]:
    """options: rows, fewest and most (constraints of a prompt), turns_share, revise_share, without (ids not to use)."""
    drafts = plan(options["rows"])
    given.openings.take(desk.maker, drafts)
    for draft in alive(drafts):
        _constrain(draft, desk.rng(draft.index), options)
    of_scope = {scope: [d for d in drafts if d.details.get("scope") == scope] for scope in (ANSWER, TURNS, REVISE)}
    turns.answer(desk, "first answer", [*of_scope[TURNS], *of_scope[REVISE]])
    follow_up(desk, of_scope[TURNS])
    for draft in alive(of_scope[REVISE]):
        draft.messages = [*draft.messages, user(draft.details["request"])]
    for draft in of_scope[REVISE]:
        del draft.details["request"]
    return drafts


def _constrain(draft: Draft, rng: random.Random, options: dict) -> None:
    """Draw scope and constraints; write the task and the first turn (of REVISE also the second, as a detail)."""
    where = rng.random()
    share = options["turns_share"]
    scope = TURNS if where < share else REVISE if where < share + options["revise_share"] else ANSWER
    ids = draw_ids(rng, rng.randint(options["fewest"], options["most"]), scope, options["without"])
    constraints = [{"id": name, "args": KINDS[name].draw(rng, draft.text)} for name in ids]
    sentences = [KINDS[name].describe(constraint["args"], rng) for name, constraint in zip(ids, constraints)]
    text = text_of("constrained")
    running = all("\n" not in sentence and sentence[-1] in ".!?" for sentence in sentences)
    written = text.render(
        prompt=draft.text, constraints=sentences, running=running, form=rng.randrange(1 << 30), scope=scope
    )
    draft.texts[text.name] = text.sha256
    draft.task = {"type": "constraints", "family": "instruction_following", "constraints": constraints}
    draft.details["scope"] = scope
    if scope == REVISE:
        draft.details["request"] = written
    draft.messages = [user(draft.text if scope == REVISE else written)]


def draw_ids(rng: random.Random, count: int, scope: str, without: list[str]) -> list[str]:
    """Up to `count` kinds, each compatible with the others; beyond one answer only those that make sense there."""
    candidates = [name for name, kind in KINDS.items() if name not in without]
    candidates = [name for name in candidates if scope == ANSWER or not KINDS[name].of_one_prompt]
    chosen: list[str] = []
    for name in rng.sample(candidates, len(candidates)):
        if len(chosen) < count and all(compatible(name, other) for other in chosen):
            chosen.append(name)
    return chosen
