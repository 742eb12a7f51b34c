"""Turns of a conversation that a model goes on with, playing the assistant or the user."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from data_prep.synthetic.prompts.answers import one_turn
from data_prep.synthetic.prompts.desk import Desk
from data_prep.synthetic.prompts.draft import Draft, alive, assistant, user
from data_prep.synthetic.prompts.filler import without_filler

SPEAKERS = {"user": "USER", "assistant": "ASSISTANT"}


def transcript(messages: Sequence[dict]) -> str:
    """The turns as a text to be shown to a model; a system message is left out."""
    turns = [message for message in messages if message["role"] in SPEAKERS]
    return "\n\n".join(f"{SPEAKERS[turn['role']]}: {turn['content']}" for turn in turns)


def answer(desk: Desk, step: str, drafts: Sequence[Draft]) -> None:
    """The assistant's turn, appended to the messages of every draft that is alive."""
    desk.answer(step, drafts, lambda draft: draft.messages)
    for draft in alive(drafts):
        draft.messages = [*draft.messages, assistant(draft.text)]


def user_turn(
    desk: Desk, step: str, drafts: Sequence[Draft], text: str, values: Callable[[Draft], dict] = lambda draft: {}
) -> None:
    """The user's turn, without polite filler, appended. A turn that is nothing else is lost (only_filler).

    The text is rendered with `values` and `conversation`, the turns so far.
    """

    def all_values(draft: Draft) -> dict:
        return {"conversation": transcript(draft.messages), **values(draft)}

    desk.write(step, drafts, text, all_values, one_turn)
    for draft in alive(drafts):
        kept = without_filler(draft.text)
        if kept != draft.text:
            draft.details["filler_removed"] = draft.details.get("filler_removed", 0) + 1
        draft.bucket = "" if kept else "only_filler"
        draft.messages = [*draft.messages, user(kept)]
