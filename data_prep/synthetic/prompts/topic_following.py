"""Conversations of an assistant that keeps to one topic, ending in a turn that tries to lead it away.

The idea of CantTalkAboutThis, whose training set the report uses (3.2.5). Some conversations end on the topic, so that
declining is not always right.
"""

from __future__ import annotations

import random

from data_prep.synthetic.prompts import turns
from data_prep.synthetic.prompts.desk import Desk, lines_of, text_of
from data_prep.synthetic.prompts.draft import Draft, Subject, alive
from data_prep.synthetic.prompts.inputs import Given


def make(desk: Desk, options: dict, given: Given) -> list[Draft]:
    """options: rows, exchanges (user and assistant, on the topic, before the last turn), on_topic_share.

    The row's details say whether its last turn is a `distractor`.
    """
    drafts = [_draft(desk.rng(index), index, options, given.topics) for index in range(options["rows"])]
    desk.write("instructions", drafts, "topic_following_system", lambda draft: draft.details)
    for draft in alive(drafts):
        draft.messages = [{"role": "system", "content": draft.text}]
    for number in range(1, options["exchanges"] + 1):
        turns.user_turn(desk, f"turn {number}", drafts, "topic_following_user", _instructions)
        turns.answer(desk, f"answer {number}", drafts)
    for text, distractor in (("topic_following_distractor", True), ("topic_following_user", False)):
        those = [draft for draft in drafts if draft.details["distractor"] is distractor]
        turns.user_turn(desk, "last turn", those, text, _instructions)
    return drafts


def _draft(rng: random.Random, index: int, options: dict, topics: list[Subject]) -> Draft:
    topic, trade = rng.choice(topics), rng.choice(lines_of("topic_following_trades"))
    draft = topic.draft(index, topic=topic.text, trade=trade, distractor=rng.random() >= options["on_topic_share"])
    draft.texts["topic_following_trades"] = text_of("topic_following_trades").sha256
    return draft


def _instructions(draft: Draft) -> dict:
    return {"instructions": draft.messages[0]["content"]}
