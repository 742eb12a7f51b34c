"""Keywords of mathematics or programming: fields by level, notions below them, the user's own, checked one by one.

The report (3.2.1) has 17K for mathematics and 12K for Python, from generated topics, Wikipedia entities that a model
classified, frequent tokens of Python files and manual lists. Entities and tokens come in as the user's own keywords;
`classify` is the classification.
"""

from __future__ import annotations

from data_prep.synthetic.prompts.answers import yes_no
from data_prep.synthetic.prompts.desk import Desk
from data_prep.synthetic.prompts.draft import Draft, Subject
from data_prep.synthetic.prompts.topics import leaves, roots, settle, subjects


def make(desk: Desk, options: dict, subject: str, own: list[str]) -> tuple[list[Draft], list[Subject]]:
    """(what was planned, the keywords). options: levels, macro, sub (per level), classify (the user's own too).

    Buckets beside those of the desk: off_subject (the model says that a candidate is none), duplicate.
    """
    candidates, seen = [Draft(i, text) for i, text in enumerate(own)], set()
    if options["classify"]:
        texts = [draft.text for draft in candidates]
        desk.write("check", candidates, "keyword_check", lambda d: {"subject": subject, "keyword": d.text}, _answer)
        for draft, text in zip(candidates, texts):
            if not draft.bucket:
                draft.bucket = "" if draft.text == "yes" else "off_subject"
                draft.text = text
    settle(candidates, seen)
    planned, found = list(candidates), subjects(candidates)
    for level in options["levels"]:
        values = {"subject": subject, "level": level}
        broad = roots(desk, options["macro"], "keywords_macro", values, seen)
        narrow = leaves(desk, broad, options["sub"], "keywords_sub", lambda root, v=values: {**v, "field": root.text})
        settle(narrow, seen)
        planned += [*broad, *narrow]
        found += subjects([*broad, *narrow], level)
    return planned, found


def _answer(text: str) -> str | None:
    said = yes_no(text)
    return None if said is None else "yes" if said else "no"
