"""Problems about the keywords of a subject: mathematics by level, programming by difficulty (the report, 3.2.1)."""

from __future__ import annotations

from data_prep.synthetic.prompts.desk import Desk
from data_prep.synthetic.prompts.draft import Draft, Subject
from data_prep.synthetic.prompts.inputs import Given
from data_prep.synthetic.prompts.questions import spoken
from data_prep.synthetic.prompts.revise import revise


def maths(desk: Desk, options: dict, given: Given) -> list[Draft]:
    """options: per_keyword, levels, revisions, original. A keyword of the user's own takes the levels in turn."""
    return _problems(desk, options, given.keywords["maths"], "maths_problem", {}, own_level_only=True)


def coding(desk: Desk, options: dict, given: Given) -> list[Draft]:
    """options: per_keyword, language, levels (each keyword takes them in turn), revisions, original."""
    values = {"language": options["language"]}
    return _problems(desk, options, given.keywords["coding"], "coding_problem", values, own_level_only=False)


def _problems(
    desk: Desk, options: dict, keywords: list[Subject], text: str, values: dict, own_level_only: bool
) -> list[Draft]:
    each, levels = options["per_keyword"], options["levels"]
    drafts, groups = [], {}
    for index in range(each * len(keywords)):
        place, number = divmod(index, each)
        keyword = keywords[place]
        level = (own_level_only and keyword.level) or levels[(place + number) % len(levels)]
        drafts.append(keyword.draft(index, keyword=keyword.text, level=level))
        groups.setdefault((place, level), []).append(drafts[-1])
    desk.lists("problems", list(groups.values()), text, lambda draft: {**draft.details, **values})
    return spoken(revise(desk, drafts, options))
