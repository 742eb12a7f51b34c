"""Requests about topics and documents: questions, writing tasks, instructions with a document (the report, 3.2.1)."""

from __future__ import annotations

from data_prep.synthetic.prompts.desk import Desk, text_of
from data_prep.synthetic.prompts.draft import Draft, alive, plan, user
from data_prep.synthetic.prompts.inputs import Given
from data_prep.synthetic.prompts.revise import revise


def open_qa(desk: Desk, options: dict, given: Given) -> list[Draft]:
    """options: per_topic, revisions, original."""
    each, topics = options["per_topic"], given.topics
    drafts = [topics[i // each].draft(i, topic=topics[i // each].text) for i in range(each * len(topics))]
    groups = [drafts[start : start + each] for start in range(0, len(drafts), each)]
    desk.lists("questions", groups, "open_qa", lambda draft: {"topic": draft.details["topic"]})
    return spoken(revise(desk, drafts, options))


def writing(desk: Desk, options: dict, given: Given) -> list[Draft]:
    """options: per_topic, document_types (as many of them as fit are used for one topic), revisions, original."""
    each, topics, types = options["per_topic"], given.topics, options["document_types"]
    drafts = []
    for number, topic in enumerate(topics):
        drawn = desk.rng(number).sample(types, len(types))
        for place in range(each):
            document_type = drawn[place % len(drawn)]
            drafts.append(topic.draft(number * each + place, topic=topic.text, document_type=document_type))
    desk.write("tasks", drafts, "writing", lambda draft: draft.details)
    return spoken(revise(desk, drafts, options))


def closed_qa(desk: Desk, options: dict, given: Given) -> list[Draft]:
    """options: documents (how many are drawn), per_document, longest_document (characters), revisions, original.

    The document and the instruction are joined by a form of our own that is drawn for each prompt. A document that is
    too long, or not there because the file has fewer, loses its prompts in the buckets too_long and no_document.
    """
    count, each, longest = options["documents"], options["per_document"], options["longest_document"]
    numbers = desk.rng("documents").sample(range(len(given.documents)), min(count, len(given.documents)))
    drafts = plan(count * each)
    for draft in drafts:
        place = draft.index // each
        if place >= len(numbers):
            draft.bucket = "no_document"
        else:
            draft.details["document"] = numbers[place] + 1  # its line
            draft.bucket = "too_long" if len(given.documents[numbers[place]]) > longest else ""
    groups = [drafts[start : start + each] for start in range(0, len(drafts), each)]
    desk.lists("instructions", groups, "closed_qa", lambda draft: {"document": _document(draft, given)})
    drafts = revise(desk, drafts, options)
    join = text_of("closed_qa_join")
    for draft in alive(drafts):
        form = desk.rng("form", draft.index).randrange(1 << 30)
        draft.text = join.render(document=_document(draft, given), instruction=draft.text, form=form)
        draft.texts[join.name] = join.sha256
    return spoken(drafts)


def _document(draft: Draft, given: Given) -> str:
    return given.documents[draft.details["document"] - 1]


def spoken(drafts: list[Draft]) -> list[Draft]:
    """Each text that is there as the one user turn of its row."""
    for draft in alive(drafts):
        draft.messages = [user(draft.text)]
    return drafts
