"""Prompts of two user turns: a first turn, a model's answer, and what the model as the user asks next.

In the report (3.2.1) the first turns are ShareGPT's, answers and second turns come from intermediate models.
"""

from __future__ import annotations

from data_prep.synthetic.prompts import turns
from data_prep.synthetic.prompts.desk import Desk, lines_of, text_of
from data_prep.synthetic.prompts.draft import Draft, plan
from data_prep.synthetic.prompts.inputs import Given
from data_prep.synthetic.prompts.questions import spoken


def make(desk: Desk, options: dict, given: Given) -> list[Draft]:
    """options: rows."""
    drafts = plan(options["rows"])
    given.openings.take(desk.maker, drafts)
    spoken(drafts)
    turns.answer(desk, "first answer", drafts)
    follow_up(desk, drafts)
    return drafts


def follow_up(desk: Desk, drafts: list[Draft]) -> None:
    """The user's next turn, in a drawn manner (ordinary, short, doubting, ...), appended."""
    manners = lines_of("follow_up_manners")
    for draft in drafts:
        draft.details["manner"] = desk.rng("manner", draft.index).choice(manners)
        draft.texts["follow_up_manners"] = text_of("follow_up_manners").sha256
    turns.user_turn(desk, "next turn", drafts, "follow_up", lambda draft: {"manner": draft.details["manner"]})
