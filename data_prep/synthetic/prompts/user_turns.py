"""First messages of users, written with nothing given but a sketch of who writes."""

from __future__ import annotations

from data_prep.synthetic.prompts.answers import one_turn
from data_prep.synthetic.prompts.desk import Desk, lines_of, text_of
from data_prep.synthetic.prompts.draft import Draft, plan
from data_prep.synthetic.prompts.inputs import Given
from data_prep.synthetic.prompts.questions import spoken


def make(desk: Desk, options: dict, given: Given) -> list[Draft]:
    """options: rows."""
    people, drafts = lines_of("personalities"), plan(options["rows"])
    for draft in drafts:
        draft.details["personality"] = desk.rng(draft.index).choice(people)
        draft.texts["personalities"] = text_of("personalities").sha256
    desk.write("messages", drafts, "user_turn", lambda draft: draft.details, one_turn)
    return spoken(drafts)
