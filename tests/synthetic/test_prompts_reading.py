"""What models write -> lists, texts, verdicts; and user turns without polite filler. All examples are made by hand."""

from __future__ import annotations

import pytest

from data_prep.synthetic.prompts.answers import one_turn, only_text, verdict, yes_no
from data_prep.synthetic.prompts.filler import without_filler
from data_prep.synthetic.prompts.lists import headline, parse_list

LISTS = {
    "numbered": ("1. a b\n2. c", ["a b", "c"]),
    "parentheses, talk around it": ("Sure, two topics:\n\n1) a\n\n2) c\n\nI hope this helps!", ["a", "c"]),
    "bold numbers": ("**1.** a\n**2.** b", ["a", "b"]),
    "labels": ("Question 1: what?\nQuestion 2: who?", ["what?", "who?"]),
    "headings with the text below": ("**Problem 1:**\nDo it.\n\n**Problem 2:**\nDo that.", ["Do it.", "Do that."]),
    "every number is 1": ("1. a\n1. b\n1. c", ["a", "b", "c"]),
    "bullets": ("* a\n* b", ["a", "b"]),
    "YAML": ('topics:\n  - a\n  - "b"', ["a", "b"]),
    "YAML in a fence": ("```yaml\n- a\n- b\n```", ["a", "b"]),
    "a fence in talk": ("Sure:\n\n```\n1. a\n2. b\n```\n\nMore?", ["a", "b"]),
    "JSON": ('["a", "b"]', ["a", "b"]),
    "JSON in a fence": ('Here:\n```json\n["a", "b"]\n```\nBye.', ["a", "b"]),
    "JSON object": ('{"topics": [{"name": "a"}, {"name": "b"}], "count": 2}', ["a", "b"]),
    "brackets in items": ("1. Compute [1, 2] + [3].\n2. Solve {x}.", ["Compute [1, 2] + [3].", "Solve {x}."]),
    "JSON in an item": ('1. Sort this:\n["b", "a"]\n2. Reverse it.', ['Sort this:\n["b", "a"]', "Reverse it."]),
    "sub-points": ("1. Sort:\n   - first\n   - last\n2. Merge.", ["Sort:\n- first\n- last", "Merge."]),
    "numbers in code": ("1. Mend:\n```\n2. no item\n```\n2. Test.", ["Mend:\n```\n2. no item\n```", "Test."]),
    "numbers in text": ("1. In the year\n1990. 2 men\n2. Later", ["In the year\n1990. 2 men", "Later"]),
    "items with paragraphs": ("1. One.\n\nMore.\n\n2. Two.\n\nMore.", ["One.\n\nMore.", "Two.\n\nMore."]),
    "minus inside": ("- What is 3 - 2?\n- And 2 - 3?", ["What is 3 - 2?", "And 2 - 3?"]),
    "plain lines": ("Physics\nChemistry", []),
    "commas": ("a, b, c", []),
    "a refusal": ("I'm sorry, I can't do that.", []),
    "broken JSON": ('["a", "b', []),
    "JSON of numbers": ("[1, 2]", []),
    "brackets without end": ("[" * 20_000, []),
    "empty items": ("1.\n2.\n", []),
    "nothing": ("", []),
}


@pytest.mark.parametrize("answer, items", LISTS.values(), ids=LISTS)
def test_lists(answer, items):
    assert parse_list(answer) == items


@pytest.mark.parametrize("item", ["Optics", "**Optics**: light", "**Optics:** light", '"Optics"', "Optics."])
def test_a_topic_is_a_name(item):
    assert headline(item) == "Optics"


TEXTS = {
    "Write x.": "Write x.",
    "Here's a longer version of the request:\n\nWrite x.": "Write x.",
    "Sure!\n\n**Revised request:** Write x.": "Write x.",
    '"Write x."': "Write x.",
    "```\nWrite x.\n```": "Write x.",
    "<request>\nWrite x.\n</request>": "Write x.",
    '"A" and "B" are names. Which is older?': '"A" and "B" are names. Which is older?',
    "Here are my ingredients:\n\nflour, eggs": "Here are my ingredients:\n\nflour, eggs",
    "My task: sort": "My task: sort",
    "I'm sorry, but I can't help with that.": None,
    "As an AI, I have no questions.": None,
    " \n": None,
    "...": None,
}


@pytest.mark.parametrize("answer, text", TEXTS.items())
def test_one_text(answer, text):
    assert only_text(answer) == text


def test_a_turn_of_two_speakers_is_none():
    assert one_turn("USER: And the cost?") == "And the cost?"
    assert one_turn("And the cost?\n\nASSISTANT: It is free.") is None


def test_yes_no_and_verdicts():
    assert [yes_no(text) for text in ("Yes.", "**No**, a name", "Answer: yes", "yesterday", "Perhaps")] == [
        True, False, True, None, None,
    ]  # fmt: skip
    said = ("It runs.\n\nVerdict: yes", "**Verdict:** No", "Verdict: yes, were it not slow. Verdict: no", "yes")
    assert [verdict(text) for text in said] == [True, False, False, None]


FILLED = {
    "Thank you! Can you tell me more?": "Can you tell me more?",
    "Thanks so much, that's great, but how do I start?": "How do I start?",
    "Wow, thanks for the explanation! What about tea?": "What about tea?",
    "That is a really helpful explanation. Now, what about rice?": "Now, what about rice?",
    "Thank you for the recipe, what about dessert?": "What about dessert?",
    "What is tea? Thanks in advance!": "What is tea?",
    "Could you explain? That would be great. Thank you! 😊": "Could you explain?",
    "Thanks! 😊 What else?": "What else?",
    "I really appreciate your help. Could you shorten it?": "Could you shorten it?",
    "Okay, so what about the other one?": "What about the other one?",
    "Perfect. print(x) fails, though": "print(x) fails, though",
    "Great, what's next?": "What's next?",
    "That's great, thank you so much for your help!": "",
    "Thank you!": "",
}
KEPT = (
    "Great Britain has how many people?",
    "Thank you notes: how do I write one?",
    "That's interesting because it contradicts you. Why?",
    "Nice is a city in France. How big is it?",
    "Good, cheap hotels in Rome?",
    "I love it when it rains. Why is that?",
    "I like the idea of a garden. What should I plant?",
    "The weather is nice. What should I do outside?",
    "So it is safe?\n\n1. yes\n2. no",
)


@pytest.mark.parametrize("turn, left", FILLED.items())
def test_filler_goes(turn, left):
    assert without_filler(turn) == left


@pytest.mark.parametrize("turn", KEPT)
def test_what_only_begins_like_filler_stays(turn):
    assert without_filler(turn) == turn
