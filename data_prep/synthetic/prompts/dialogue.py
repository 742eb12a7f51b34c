"""Whole dialogues for SFT: the model plays the assistant and a user with a personality.

In the report (3.2.2) they have three turns, are decoded greedily, lose the user's polite filler, and are dropped below
a reward whose value is not published.
"""

from __future__ import annotations

from data_prep.synthetic.prompts import turns
from data_prep.synthetic.prompts.desk import Desk, lines_of, text_of
from data_prep.synthetic.prompts.draft import Draft, alive, plan
from data_prep.synthetic.prompts.inputs import Given
from data_prep.synthetic.prompts.questions import spoken


def make(desk: Desk, options: dict, given: Given) -> list[Draft]:
    """options: rows, user_turns, minimum_reward (of the last answer by `given.reward`; null: none is asked for)."""
    people, desk = lines_of("personalities"), desk.greedy()
    drafts = plan(options["rows"])
    given.openings.take(desk.maker, drafts)
    for draft in drafts:
        draft.details["personality"] = desk.rng(draft.index).choice(people)
        draft.texts["personalities"] = text_of("personalities").sha256
    spoken(drafts)
    turns.answer(desk, "answer 1", drafts)
    for number in range(2, options["user_turns"] + 1):
        turns.user_turn(desk, f"turn {number}", drafts, "dialogue_turn", _personality)
        turns.answer(desk, f"answer {number}", drafts)
    if options["minimum_reward"] is not None:
        _drop_below(options["minimum_reward"], drafts, given)
    return drafts


def _personality(draft: Draft) -> dict:
    return {"personality": draft.details["personality"]}


def _drop_below(minimum: float, drafts: list[Draft], given: Given) -> None:
    """Buckets: low_reward, no_reward (the reward model failed on it)."""
    scored = alive(drafts)
    for draft, reward in zip(scored, given.reward([draft.messages for draft in scored])):
        draft.details["reward"] = reward
        draft.bucket = "no_reward" if reward is None else "low_reward" if reward < minimum else ""
