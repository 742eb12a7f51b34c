"""Topics: broad ones, narrower ones below them, and the user's own.

The report (3.2.1) has 3K topics in total, generated in these two steps and completed by hand; how many are broad is not
known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from data_prep.keys import normal
from data_prep.synthetic.prompts.desk import Desk
from data_prep.synthetic.prompts.draft import MADE, Draft, Subject, alive

AT_ONCE = 25  # entries of one list: longer ones come back short or begin to repeat themselves
KNOWN = 200  # entries that a request for more of them shows


def make(desk: Desk, options: dict, own: Sequence[str]) -> tuple[list[Draft], list[Subject]]:
    """(what was planned, the topics: the user's, the broad and the narrower ones, no two alike).

    options: macro (how many broad ones), sub (narrower ones below each).
    """
    seen: set[str] = set()
    given = [Draft(index, topic) for index, topic in enumerate(own)]
    settle(given, seen)
    broad = roots(desk, options["macro"], "topics_macro", {}, seen)
    narrow = leaves(desk, broad, options["sub"], "topics_sub", lambda root: {"topic": root.text})
    settle(narrow, seen)
    planned = [*given, *broad, *narrow]
    return planned, subjects(planned)


def roots(desk: Desk, count: int, text: str, values: dict, seen: set[str]) -> list[Draft]:
    """`count` entries in lists of at most AT_ONCE, each list asked for with the last KNOWN of those before it.

    What a list lacks is asked for again, in at most twice as many lists as would do: everything else stands on these.
    """
    drafts, made = [], []
    for _ in range(2 * math.ceil(count / AT_ONCE)):
        missing = min(AT_ONCE, count - len(made))
        if not missing:
            break
        group = [Draft(len(drafts) + place) for place in range(missing)]
        desk.lists("broad", [group], text, lambda _, known=made[-KNOWN:]: {**values, "known": known}, short=True)
        settle(group, seen)
        drafts += group
        made += [draft.text for draft in group if draft.bucket == MADE]
    return drafts


def leaves(desk: Desk, above: Sequence[Draft], each: int, text: str, values) -> list[Draft]:
    """`each` entries below every entry of `above` that was made."""
    groups = []
    for number, root in enumerate(root for root in above if root.bucket == MADE):
        first = len(above) + number * each
        group = [Draft(first + i, details={"root": root}, texts=dict(root.texts)) for i in range(each)]
        groups.append(group)
    desk.lists("narrow", groups, text, lambda draft: values(draft.details["root"]), short=True)
    return [draft for group in groups for draft in group]


def subjects(drafts: Sequence[Draft], level: str | None = None) -> list[Subject]:
    """Those that were made."""
    return [Subject(draft.text, level, draft.texts) for draft in drafts if draft.bucket == MADE]


def settle(drafts: Sequence[Draft], seen: set[str]) -> None:
    """Those alive become MADE, or `duplicate` where there is one like it."""
    for draft in alive(drafts):
        key = normal(draft.text)
        draft.bucket = "duplicate" if key in seen else MADE
        seen.add(key)
